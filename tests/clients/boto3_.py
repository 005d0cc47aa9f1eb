"""boto3 with keys that nobody gave it: put, get, list and delete, whole, streamed and in parts, in each way to sign."""

import hashlib
import io
import urllib.request

import boto3
import kb
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

REGION = "eu-central-1"
MB = 1024 * 1024


def client(service, **settings):
    return boto3.client(
        service,
        region_name=REGION,
        aws_access_key_id="AKIAPLACEHOLDER00000",
        aws_secret_access_key=kb.PLACEHOLDER,
        aws_session_token=kb.PLACEHOLDER,
        config=Config(retries={"max_attempts": 1}, **settings),
    )


WAYS = {
    "as it comes": {},
    "path style": {"s3": {"addressing_style": "path"}},
    "unsigned payload": {"s3": {"payload_signing_enabled": False}, "request_checksum_calculation": "when_required"},
    "signed payload": {"s3": {"payload_signing_enabled": True}, "request_checksum_calculation": "when_required"},
}

with kb.outcome("boto3") as facts:
    payloads = {}
    for way, settings in WAYS.items():
        s3 = client("s3", **settings)
        put = s3.put_object(Bucket="crew", Key="notes/a b+c(é).txt", Body=b"hello", Metadata={"kind": "a  note"})
        payloads[way] = put["ResponseMetadata"]["HTTPHeaders"]["x-fake-payload"]
        got = s3.get_object(Bucket="crew", Key="notes/a b+c(é).txt")["Body"].read()
        kb.check(got, b"hello", f"{way}: get")
        names = [item["Key"] for item in s3.list_objects_v2(Bucket="crew", Prefix="notes/a b")["Contents"]]
        kb.check(names, ["notes/a b+c(é).txt"], f"{way}: list")
        s3.delete_object(Bucket="crew", Key="notes/a b+c(é).txt")
    facts["payloads"] = payloads

    large = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(20 * MB // 32))
    s3 = client("s3")
    parts = TransferConfig(multipart_threshold=5 * MB, multipart_chunksize=5 * MB, max_concurrency=2)
    s3.upload_fileobj(io.BytesIO(large), "crew", "large", Config=parts)
    got = s3.get_object(Bucket="crew", Key="large")["Body"].read()
    kb.check(hashlib.sha256(got).hexdigest(), hashlib.sha256(large).hexdigest(), "20 MB in parts")

    s3 = client("s3", signature_version="s3v4", s3={"addressing_style": "virtual"})  # else the region's host is not used
    s3.put_object(Bucket="crew", Key="small", Body=b"hello")
    presigned = s3.generate_presigned_url("get_object", Params={"Bucket": "crew", "Key": "small"})
    with urllib.request.urlopen(urllib.request.Request(presigned, headers=kb.identity())) as answer:
        kb.check(answer.read(), b"hello", "a URL that the client signed itself")

    arn = f"arn:aws:lambda:{REGION}:123456789012:function:note"
    told = client("lambda").invoke(FunctionName=arn, Payload=b'{"a": 1}')["Payload"].read()
    kb.check(b'"service": "lambda"' in told and b"%3A" in told, True, f"a path with colons: {told}")

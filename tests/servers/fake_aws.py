"""A small AWS that takes a request only if botocore would have signed it so.

    fake_aws.py CERTIFICATE KEY      (PEM files; the port is printed, then it serves)

AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN say whose signatures count. `sts.*` gives these keys for
AWS_WEB_IDENTITY_TOKEN. `s3.*` and `*.s3.*` are an S3
with one bucket; every other host answers what it received. `X-Fake-Payload` on an answer is what stood for the body.
"""

import hashlib
import json
import os
import re
import ssl
import sys
import zlib
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY_ID = os.environ["AWS_ACCESS_KEY_ID"]
TOKEN = os.environ.get("AWS_SESSION_TOKEN")
CREDENTIALS = Credentials(KEY_ID, os.environ["AWS_SECRET_ACCESS_KEY"], TOKEN)
WEB_IDENTITY_TOKEN = os.environ.get("AWS_WEB_IDENTITY_TOKEN")
ROLE = "arn:aws:iam::123456789012:role/crew"
BUCKET = "crew"
FORM = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})"
)

OBJECTS, UPLOADS = {}, {}


class Refused(Exception):
    pass


def require(holds, why):
    if not holds:
        raise Refused(why)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do(self):
        body = self.body()
        try:
            self.host = self.headers["Host"]
            if self.host.startswith("sts."):
                return self.assume(body.decode())
            service = self.verified(body)
            self.payload = self.headers.get("X-Amz-Content-SHA256", "")
            self.s3(body) if service == "s3" else self.echo(service, body)
        except Refused as refused:
            self.reply(403, f"<Error><Code>SignatureDoesNotMatch</Code><Message>{escape(str(refused))}</Message></Error>")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(self.chunks())
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def chunks(self):
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b""):
            pass

    def verified(self, body):
        """The service that the request is signed for; its signature is made again, by botocore."""
        found = self.headers.get_all("Authorization") or []
        require(len(found) == 1, f"{len(found)} Authorization headers")
        form = FORM.fullmatch(found[0])
        require(form, "the Authorization header has another form")
        key_id, day, region, service, names, signature = form.groups()
        require(key_id == KEY_ID, "another access key")
        require(self.host.split(":")[0].find(region) > 0 or region == "us-east-1", f"region {region} at {self.host}")
        time = self.headers["X-Amz-Date"]
        signed_at = datetime.strptime(time, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        require(abs(datetime.now(timezone.utc) - signed_at) < timedelta(minutes=5) and time.startswith(day), "the date")
        require(self.headers.get("X-Amz-Security-Token") == TOKEN, "the session token")
        names = names.split(";")
        amazons = {name.lower() for name in self.headers if name.lower().startswith("x-amz-")}
        require({"host", *amazons} <= set(names), "a header of Amazon's is not signed")
        require("X-Amz-Signature" not in self.path, "there are two signatures")
        auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(CREDENTIALS, service, region)
        request = AWSRequest(self.command, f"https://{self.host}{self.path}", data=body)
        for name in names:
            if name != "host":
                request.headers[name] = ",".join(self.headers.get_all(name) or [])
        request.headers["host"] = self.host
        request.context["timestamp"] = time
        canonical = auth.canonical_request(request)
        require(auth.signature(auth.string_to_sign(request, canonical), request) == signature, canonical)
        said = self.headers.get("X-Amz-Content-SHA256", "")
        require(not re.fullmatch("[0-9a-f]{64}", said) or said == hashlib.sha256(body).hexdigest(), "the body's hash")
        return service

    def decoded(self, body):
        """What an aws-chunked body carries; its trailing checksum is compared."""
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return body
        data, rest = b"", body
        while True:
            line, _, rest = rest.partition(b"\r\n")
            if (size := int(line.split(b";")[0], 16)) == 0:
                break
            data, rest = data + rest[:size], rest[size + 2 :]
        trailers = dict(line.split(":", 1) for line in rest.decode().split("\r\n") if line)
        require(int(self.headers["X-Amz-Decoded-Content-Length"]) == len(data), "the decoded length")
        require(list(trailers) == [self.headers["X-Amz-Trailer"]], "the trailer")
        crc = b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        require(trailers.get("x-amz-checksum-crc32", crc).strip() == crc, "the trailing checksum")
        return data

    def assume(self, body):
        """The Security Token Service: the keys for another issuer's token, without any signature."""
        asked = dict(parse_qsl(body))
        require("Authorization" not in self.headers, "a signature")
        require(asked.get("Action") == "AssumeRoleWithWebIdentity" and asked.get("Version") == "2011-06-15", "the action")
        require(asked.get("RoleArn") == ROLE and re.fullmatch(r"[\w+=,.@-]{2,64}", asked["RoleSessionName"]), "the role")
        if asked.get("WebIdentityToken") != WEB_IDENTITY_TOKEN:
            return self.reply(400, "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>")
        end = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        parts = {"AccessKeyId": KEY_ID, "SecretAccessKey": CREDENTIALS.secret_key, "SessionToken": TOKEN, "Expiration": end}
        credentials = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in parts.items())
        return self.reply(200, f"<Response><Result><Credentials>{credentials}</Credentials></Result></Response>")

    def s3(self, body):
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        path = unquote(url.path).lstrip("/")
        bucket, key = (BUCKET, path) if self.host.startswith(BUCKET + ".") else (path.split("/", 1) + [""])[:2]
        require(bucket == BUCKET, f"bucket {bucket}")
        etag = lambda data: '"' + hashlib.md5(data).hexdigest() + '"'
        match self.command, bool(key):
            case "PUT", True if "uploadId" in query:
                data = UPLOADS[query["uploadId"]][int(query["partNumber"])] = self.decoded(body)
                self.reply(200, "", ETag=etag(data))
            case "PUT", True:
                OBJECTS[key] = self.decoded(body)
                self.reply(200, "", ETag=etag(OBJECTS[key]))
            case "POST", True if "uploads" in query:
                UPLOADS["one"] = {}
                self.reply(200, f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>one</UploadId></InitiateMultipartUploadResult>")
            case "POST", True if "uploadId" in query:
                OBJECTS[key] = b"".join(data for _, data in sorted(UPLOADS.pop(query["uploadId"]).items()))
                self.reply(200, f"<CompleteMultipartUploadResult><Key>{escape(key)}</Key><ETag>{etag(OBJECTS[key])}</ETag></CompleteMultipartUploadResult>")
            case ("GET" | "HEAD"), True if key in OBJECTS:
                self.reply(200, OBJECTS[key], ETag=etag(OBJECTS[key]))
            case "GET", False:
                found = sorted(name for name in OBJECTS if name.startswith(query.get("prefix", "")))
                entries = "".join(f"<Contents><Key>{escape(name)}</Key><Size>{len(OBJECTS[name])}</Size></Contents>" for name in found)
                self.reply(200, f"<ListBucketResult><Name>{bucket}</Name><KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>")
            case "DELETE", True:
                OBJECTS.pop(key, None)
                self.reply(204, "")
            case _:
                self.reply(404, "<Error><Code>NoSuchKey</Code></Error>")

    def echo(self, service, body):
        told = {"service": service, "path": self.path, "bytes": len(body), "target": self.headers.get("X-Amz-Target")}
        self.reply(200, json.dumps(told), content_type="application/json")

    def reply(self, status, body, content_type="application/xml", **headers):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("X-Fake-Payload", getattr(self, "payload", ""))
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_address[1], flush=True)
    server.serve_forever()


main()

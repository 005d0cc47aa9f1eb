"""grpcio: unary and server-streaming calls with plain bytes for messages."""

from urllib.parse import urlsplit

import grpc
import kb

METADATA = [(name.lower(), value) for name, value in kb.headers().items()]
url = urlsplit(kb.BASE)

with kb.outcome("grpcio") as facts:
    # The CA comes by GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
    with grpc.secure_channel(f"{url.hostname}:{url.port or 443}", grpc.ssl_channel_credentials()) as channel:
        unary = channel.unary_unary("/echo.Echo/Unary")
        message = b"m" * 100_000
        answer, call = unary.with_call(message, metadata=METADATA, timeout=20)
        kb.check(answer == message, True, "unary echo")
        kb.check(dict(call.initial_metadata())["x-provider-tenant"], kb.TENANT, "tenant")

        stream = channel.unary_stream("/echo.Echo/Stream")
        kb.check(list(stream(b"again", metadata=METADATA, timeout=20)), [b"again"] * 3, "streamed echo")
    facts["version"] = grpc.__version__

"""Python websockets: the handshake and messages up to 1 MiB, both ways at once."""

import asyncio

import kb
import websockets


async def talk():
    uri = kb.BASE.replace("http", "ws", 1) + "/ws"
    async with websockets.connect(uri, additional_headers=kb.headers(), open_timeout=20) as socket:
        kb.check(socket.response.headers["x-provider-tenant"], kb.TENANT, "tenant")
        sent = ["hello", b"\x00\xff" * 1000, "k" * (1 << 20)]
        received, _ = await asyncio.gather(_take(socket, len(sent)), _give(socket, sent))
        kb.check(received, sent, "echo")


async def _give(socket, messages):
    for message in messages:
        await socket.send(message)


async def _take(socket, count):
    return [await asyncio.wait_for(socket.recv(), 20) for _ in range(count)]


with kb.outcome("websockets") as facts:
    asyncio.run(asyncio.wait_for(talk(), 60))
    facts["version"] = websockets.__version__

"""aiohttp, which reads proxy variables only with trust_env: a call, an upload, an event stream."""

import asyncio
import hashlib

import aiohttp
import kb


async def calls():
    async with aiohttp.ClientSession(trust_env=True, headers=kb.headers()) as session:
        async with session.get(f"{kb.BASE}/echo") as answer:
            kb.check((await answer.json())["tenant"], kb.TENANT, "tenant")

        async def body():
            for n in range(16):
                yield bytes([n]) * 65536

        async with session.put(f"{kb.BASE}/upload", data=body()) as answer:
            whole = b"".join([chunk async for chunk in body()])
            kb.check((await answer.json())["sha256"], hashlib.sha256(whole).hexdigest(), "upload")

        async with session.get(f"{kb.BASE}/stream/5") as stream:
            events = [line async for line in stream.content if line.strip()]
        kb.check(len(events), 5, "events")


with kb.outcome("aiohttp") as facts:
    asyncio.run(calls())
    facts["version"] = aiohttp.__version__

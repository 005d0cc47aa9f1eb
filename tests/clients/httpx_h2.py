"""httpx over HTTP/2: calls side by side on one connection, an upload, an event stream."""

import asyncio
import hashlib

import httpx
import kb


async def calls():
    async with httpx.AsyncClient(http2=True, headers=kb.headers(), timeout=20) as client:
        answers = await asyncio.gather(*(client.get(f"{kb.BASE}/echo?n={n}") for n in range(8)))
        kb.check({answer.http_version for answer in answers}, {"HTTP/2"}, "version")
        kb.check([answer.json()["tenant"] for answer in answers], [kb.TENANT] * 8, "tenants")

        async def body():
            for n in range(16):
                yield bytes([n]) * 65536

        answer = await client.put(f"{kb.BASE}/upload", content=body())
        whole = b"".join([chunk async for chunk in body()])
        kb.check(answer.json()["sha256"], hashlib.sha256(whole).hexdigest(), "upload")

        async with client.stream("GET", f"{kb.BASE}/stream/5") as stream:
            events = [line async for line in stream.aiter_lines() if line]
        kb.check(len(events), 5, "events")


with kb.outcome("httpx") as facts:
    asyncio.run(calls())
    facts["version"] = httpx.__version__

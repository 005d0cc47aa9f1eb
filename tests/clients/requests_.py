"""Python requests: a call, a chunked upload, an event stream, on one session."""

import hashlib

import kb
import requests

with kb.outcome("requests") as facts:
    with requests.Session() as session:
        session.headers.update(kb.headers())
        told = session.get(f"{kb.BASE}/echo", params={"q": "a b"}, timeout=20).json()
        kb.check(told["tenant"], kb.TENANT, "tenant")

        chunks = [bytes([n]) * 65536 for n in range(16)]
        answer = session.put(f"{kb.BASE}/upload", data=iter(chunks), timeout=20).json()
        kb.check(answer["sha256"], hashlib.sha256(b"".join(chunks)).hexdigest(), "upload")

        with session.get(f"{kb.BASE}/stream/5", stream=True, timeout=20) as stream:
            events = [line for line in stream.iter_lines() if line]
        kb.check(len(events), 5, "events")
    facts["version"] = requests.__version__

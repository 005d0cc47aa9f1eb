#!/usr/bin/env python3
"""Checks keybearer audit files without keybearer: verify.py audit.*.jsonl audit.jsonl (oldest first)."""
import hashlib, json, sys

last, lines = None, 0
for name in sys.argv[1:]:
    for number, line in enumerate(open(name, "rb"), 1):
        body, _, digits = line.rpartition(b',"hash":"')
        canonical = body + b"}"
        event = json.loads(line)
        digest = hashlib.sha256(event["prev"].encode() + canonical).hexdigest()
        if digits != digest.encode() + b'"}\n':
            sys.exit(f"{name}:{number}: changed")
        if last and (event["seq"], event["prev"]) != (last["seq"] + 1, last["hash"]):
            sys.exit(f"{name}:{number}: does not continue the line before it")
        last, lines = event, lines + 1
print(f"{lines} lines, up to seq {last['seq']}, hash {last['hash']}")

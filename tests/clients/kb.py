"""What every Python client shares: what it is told by its environment, and its one line of outcome.

KB_BASE         the provider, for example https://api.github.com
KB_TENANTS      tenants to act for, the first one where a client acts for one only
KB_ROLE         the role to act in
KB_IDENTITY     header: name the identity in each request; proxy: it is in the proxy's URL already
KB_CREDENTIALS  {"tenant": "secret"}, only where no proxy injects one
The proxy and the CA come by the variables that the client itself reads.
"""

import json
import os
import sys
from contextlib import contextmanager

BASE = os.environ["KB_BASE"].rstrip("/")
TENANTS = os.environ.get("KB_TENANTS", "acme").split(",")
TENANT = TENANTS[0]
ROLE = os.environ.get("KB_ROLE", "researcher")
IN_HEADER = os.environ.get("KB_IDENTITY", "header") == "header"
_CREDENTIALS = json.loads(os.environ.get("KB_CREDENTIALS") or "{}")

# What an SDK wants to be given although the proxy holds the real one. It must never reach a provider.
PLACEHOLDER = "placeholder-from-the-agent"


def secret(tenant=TENANT):
    return _CREDENTIALS.get(tenant, PLACEHOLDER)


def identity(tenant=TENANT):
    """The headers that name who asks."""
    return {"Agent-Identity": f'tenant="{tenant}", role="{ROLE}"'} if IN_HEADER else {}


def headers(tenant=TENANT):
    return {"Authorization": f"Bearer {secret(tenant)}", **identity(tenant)}


def check(got, expected, what):
    if got != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {got!r}")


@contextmanager
def outcome(client):
    """Prints {client, ok, detail} whatever happens in the block, and exits 1 if it failed."""
    facts = {}
    try:
        yield facts
        line, status = {"client": client, "ok": True, "detail": facts}, 0
    except BaseException as error:  # also SystemExit: some SDKs exit
        causes = [f"{type(error).__name__}: {error}"]
        while (error := error.__cause__ or error.__context__) and len(causes) < 4:
            causes.append(f"{type(error).__name__}: {error}")
        line, status = {"client": client, "ok": False, "detail": " <- ".join(causes)}, 1
    print(json.dumps(line), flush=True)
    sys.stdout.flush()
    os._exit(status)  # frameworks leave threads behind

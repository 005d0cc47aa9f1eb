"""Makes one tiny package for each package manager, and all that its registry serves of it.

Prints a JSON list of {host, path, type, body}, the body in base64. Each package holds the text MARK.
"""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import zipfile

MARK = b"made by a registry of the tests\n"
served = []


def serve(host, path, kind, body):
    served.append({"host": host, "path": path, "type": kind, "body": base64.b64encode(body).decode()})


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def targz(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o644
            tar.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def pypi():
    """PEP 427, 503."""
    name, host = "kb_tiny-1.0-py3-none-any.whl", "files.pythonhosted.org"
    files = {
        "kb_tiny.py": b"MARK = %r\n" % MARK.decode(),
        "kb_tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: kb-tiny\nVersion: 1.0\n",
        "kb_tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: kb\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files["kb_tiny-1.0.dist-info/RECORD"] = "".join(f"{file},,\n" for file in files).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        for file, body in files.items():
            wheel.writestr(file, body)
    wheel = out.getvalue()
    path = f"/packages/ab/cd/{name}"
    page = f'<!DOCTYPE html><a href="https://{host}{path}#sha256={sha256(wheel)}">{name}</a>'
    serve("pypi.org", "/simple/kb-tiny/", "text/html", page.encode())
    serve(host, path, "application/octet-stream", wheel)


def npm(name):
    """https://github.com/npm/registry/blob/main/docs/responses/package-metadata.md; a scope's slash comes encoded."""
    package = {"name": name, "version": "1.0.0", "main": "index.js"}
    tarball = targz({
        "package/package.json": json.dumps(package).encode(),
        "package/index.js": b"module.exports = %s;\n" % json.dumps(MARK.decode()).encode(),
    })
    host, path = "registry.npmjs.org", f"/{name}/-/{name.split('/')[-1]}-1.0.0.tgz"
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    dist = {"tarball": f"https://{host}{path}", "integrity": integrity}
    document = {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {**package, "dist": dist}}}
    serve(host, "/" + name.replace("/", "%2f"), "application/json", json.dumps(document).encode())
    serve(host, path, "application/octet-stream", tarball)


def crates():
    """https://doc.rust-lang.org/cargo/reference/registry-index.html, the sparse protocol."""
    crate = targz({
        "kb-tiny-1.0.0/Cargo.toml": b'[package]\nname = "kb-tiny"\nversion = "1.0.0"\nedition = "2021"\n',
        "kb-tiny-1.0.0/src/lib.rs": b"pub const MARK: &str = %s;\n" % json.dumps(MARK.decode()).encode(),
    })
    line = {"name": "kb-tiny", "vers": "1.0.0", "deps": [], "cksum": sha256(crate), "features": {}, "yanked": False}
    config = {"dl": "https://static.crates.io/crates", "api": "https://crates.io"}
    serve("index.crates.io", "/config.json", "application/json", json.dumps(config).encode())
    serve("index.crates.io", "/kb/-t/kb-tiny", "text/plain", json.dumps(line).encode() + b"\n")
    serve("static.crates.io", "/crates/kb-tiny/1.0.0/download", "application/gzip", crate)


def debian():
    """deb(5), https://wiki.debian.org/DebianRepository/Format. Not signed: the client says [trusted=yes]."""
    host, pool = "deb.debian.org", "pool/main/k/kb-tiny/kb-tiny_1.0_all.deb"
    control = "Package: kb-tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: kb <kb@kb.test>\nDescription: tiny\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": targz({"./control": control.encode()}),
        "data.tar.gz": targz({"./usr/share/kb-tiny/mark": MARK}),
    }
    package = b"!<arch>\n"
    for name, body in parts.items():
        package += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode()
        package += body + b"\n" * (len(body) % 2)
    packages = f"{control}Filename: {pool}\nSize: {len(package)}\nSHA256: {sha256(package)}\n".encode()
    packed, index = gzip.compress(packages, mtime=0), "main/binary-all/Packages"
    release = "Suite: kb\nCodename: kb\nArchitectures: all\nComponents: main\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n"
    for name, body in {index: packages, f"{index}.gz": packed}.items():
        release += f" {sha256(body)} {len(body)} {name}\n"
    serve(host, "/debian/dists/kb/Release", "text/plain", release.encode())
    serve(host, f"/debian/dists/kb/{index}", "text/plain", packages)
    serve(host, f"/debian/dists/kb/{index}.gz", "application/gzip", packed)
    serve(host, f"/debian/{pool}", "application/octet-stream", package)


def docker():
    """https://github.com/opencontainers/distribution-spec/blob/main/spec.md, without a sign-in."""
    host, kinds, blobs = "mcr.microsoft.com", "application/vnd.oci.image", "/v2/kb-tiny"
    layer = targz({"mark": MARK})
    with gzip.open(io.BytesIO(layer)) as tar:
        roots = {"type": "layers", "diff_ids": ["sha256:" + sha256(tar.read())]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": roots}).encode()

    def part(kind, body):
        return {"mediaType": f"{kinds}.{kind}", "digest": "sha256:" + sha256(body), "size": len(body)}

    configured, layered = part("config.v1+json", config), part("layer.v1.tar+gzip", layer)
    manifest = {"schemaVersion": 2, "mediaType": f"{kinds}.manifest.v1+json", "config": configured, "layers": [layered]}
    serve(host, "/v2/", "application/json", b"{}")
    serve(host, f"{blobs}/manifests/1.0", manifest["mediaType"], json.dumps(manifest).encode())
    serve(host, f"{blobs}/blobs/{configured['digest']}", "application/octet-stream", config)
    serve(host, f"{blobs}/blobs/{layered['digest']}", "application/octet-stream", layer)


pypi()
npm("kb-tiny")
npm("@kb/kb-tiny")
crates()
debian()
docker()
print(json.dumps(served))

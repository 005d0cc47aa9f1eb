# What every shell client shares; kb.py says what the variables mean. Sourced after `client=` is set.
# shellcheck shell=sh disable=SC2154
set -eu

tenant=${KB_TENANTS%%,*}
secret=$(printf '%s' "${KB_CREDENTIALS:-}" | sed -n "s/.*\"$tenant\": *\"\([^\"]*\)\".*/\1/p")
secret=${secret:-placeholder-from-the-agent}
# What every package of registry.py holds.
mark='made by a registry of the tests'
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'finish $?' EXIT

finish() {
    status=$1
    if [ "$status" = 0 ]; then
        printf '{"client": "%s", "ok": true, "detail": {}}\n' "$client"
    else
        [ -s "$work/why" ] || cp "$work/log" "$work/why" 2>/dev/null || :
        printf '{"client": "%s", "ok": false, "detail": "exit %s: %s"}\n' "$client" "$status" \
            "$(tail -c 600 "$work/why" 2>/dev/null | tr '"\\\n\r\t' "'/   ")"
    fi
    rm -rf "$work"
    exit "$status"
}

fail() {
    printf '%s' "$*" >"$work/why"
    exit 1
}

# The identity's header line, or nothing where the proxy's URL carries it.
identity() {
    if [ "${KB_IDENTITY:-header}" = header ]; then
        printf 'Agent-Identity: tenant="%s", role="%s"' "$tenant" "${KB_ROLE:-researcher}"
    fi
}

# expect WHAT GOT EXPECTED
expect() {
    [ "$2" = "$3" ] || fail "$1: expected '$3', got '$2'"
}

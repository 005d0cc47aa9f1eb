#!/bin/sh
# curl, over the HTTP version of CURL_HTTP (1.1 or 2): a call, a chunked upload after 100-continue, a trailer, events.
client="curl HTTP/${CURL_HTTP:=1.1}"
. "$(dirname "$0")/kb.sh"

fetch() {
    curl --silent --show-error --fail-with-body --max-time 30 "--http$CURL_HTTP" \
        -H "Authorization: Bearer $secret" ${identity:+-H "$identity"} "$@" 2>>"$work/log"
}
identity=$(identity)

fetch "$KB_BASE/echo?q=1" -o "$work/echo" -w '%{http_version}' >"$work/version"
expect version "$(cat "$work/version")" "$CURL_HTTP"
expect tenant "$(sed -n 's/.*"tenant":"\([^"]*\)".*/\1/p' "$work/echo")" "$tenant"

head -c 3000000 /dev/urandom >"$work/body"
fetch -T - -H 'Expect: 100-continue' "$KB_BASE/upload" <"$work/body" >"$work/sum"
expect upload "$(sed -n 's/.*"sha256":"\([^"]*\)".*/\1/p' "$work/sum")" "$(sha256sum <"$work/body" | cut -d' ' -f1)"

fetch -D "$work/head" -H 'TE: trailers' "$KB_BASE/trailers" >/dev/null
grep -qi '^x-checksum: of-the-body' "$work/head" || fail "the trailer is missing"

expect events "$(fetch -N "$KB_BASE/stream/5" | grep -c '^data: ')" 5

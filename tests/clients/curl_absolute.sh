#!/bin/sh
# curl with a plain http:// URL through the proxy (absolute-form): no CA on this side, TLS is the proxy's business.
client="curl absolute-form"
. "$(dirname "$0")/kb.sh"
identity=$(identity)
plain=http://${KB_BASE#*://}

fetch() {
    curl --silent --show-error --fail-with-body --max-time 30 \
        -H "Authorization: Bearer $secret" ${identity:+-H "$identity"} "$@" 2>>"$work/log"
}

fetch "$plain/echo?q=1" >"$work/echo"
expect tenant "$(sed -n 's/.*"tenant":"\([^"]*\)".*/\1/p' "$work/echo")" "$tenant"
head -c 3000000 /dev/urandom >"$work/body"
fetch -T - "$plain/upload" <"$work/body" >"$work/sum"
expect upload "$(sed -n 's/.*"sha256":"\([^"]*\)".*/\1/p' "$work/sum")" "$(sha256sum <"$work/body" | cut -d' ' -f1)"
expect events "$(fetch -N "$plain/stream/5" | grep -c '^data: ')" 5

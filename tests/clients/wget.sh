#!/bin/sh
# wget: a call and 5 MB down. It knows no variable for a CA, only an option or its configuration file.
client="wget"
. "$(dirname "$0")/kb.sh"
identity=$(identity)

fetch() {
    wget --no-verbose --tries=1 --timeout=30 --ca-certificate="$KB_CA" -O - \
        --header="Authorization: Bearer $secret" ${identity:+--header="$identity"} "$@" 2>>"$work/log"
}

fetch "$KB_BASE/echo" >"$work/echo"
expect tenant "$(sed -n 's/.*"tenant":"\([^"]*\)".*/\1/p' "$work/echo")" "$tenant"
expect bytes "$(fetch "$KB_BASE/bytes/5000000" | wc -c)" 5000000

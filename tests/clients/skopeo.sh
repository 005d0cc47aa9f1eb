#!/bin/sh
# skopeo (Go, as docker is): pulls an image, signing in nowhere.
client="skopeo"
. "$(dirname "$0")/kb.sh"
cd "$work"

skopeo --insecure-policy copy --quiet docker://mcr.microsoft.com/kb-tiny:1.0 dir:image >>"$work/log" 2>&1
expect "the layer" "$(for blob in image/*; do tar -xzOf "$blob" mark 2>/dev/null || :; done)" "$mark"

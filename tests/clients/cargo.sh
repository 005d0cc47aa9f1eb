#!/bin/sh
# cargo: adds a crate by the sparse index and fetches it. KB_CARGO is the toolchain's own, which reads no rustup.
client="cargo"
. "$(dirname "$0")/kb.sh"
PATH=$(dirname "$KB_CARGO"):$PATH
export PATH CARGO_HOME="$work/cargo"
cd "$work"

cargo init --quiet --lib --vcs none --name crew crew 2>>"$work/log"
cd crew
cargo add --quiet kb-tiny 2>>"$work/log"
cargo fetch --quiet 2>>"$work/log"
expect "the crate" "$(sed -n 's/.*= "\(.*\)\\n";/\1/p' "$CARGO_HOME"/registry/src/*/kb-tiny-1.0.0/src/lib.rs)" "$mark"

#!/bin/sh
# Runs a `cargo test` and ends with one line that counts all its tests: `N passed, N failed, N skipped`.
# The exit status is cargo's own.
set -u
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
{ "$@" 2>&1; echo "$?" >"$counts.status"; } | awk -v counts="$counts" '
    { print; fflush() }
    # test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s
    /^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i == "passed;") passed += $(i - 1)
            if ($i == "failed;") failed += $(i - 1)
            if ($i == "ignored;") skipped += $(i - 1)
        }
    }
    # What the machine does not let a test do, it says itself, and passes.
    /^transparent: .*: SKIPPED / { passed--; skipped++ }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped >counts }
'
status=$(cat "$counts.status")
rm -f "$counts.status"
cat "$counts"
exit "$status"

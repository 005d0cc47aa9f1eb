#!/bin/sh
# Deno, as npm's package brings it; a script of that package would link it, and install scripts do not run.
here=$(dirname "$0")
export DENO_NO_UPDATE_CHECK=1
exec "$here"/node_modules/@deno/linux-*/deno run --no-config --allow-env --allow-net "$here/deno_.mjs"

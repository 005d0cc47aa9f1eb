#!/bin/sh
# git over HTTPS: clone, push of a 20 MB pack (chunked), a second clone that has it, a fetch with a gzip'd request.
client="git"
. "$(dirname "$0")/kb.sh"

export GIT_TERMINAL_PROMPT=0 GIT_CONFIG_NOSYSTEM=1 HOME="$work"
export GIT_AUTHOR_NAME=agent GIT_AUTHOR_EMAIL=agent@example.test GIT_COMMITTER_NAME=agent GIT_COMMITTER_EMAIL=agent@example.test
setting() { git config --global --add "$@"; }
basic=$(printf 'x-access-token:%s' "$secret" | base64 | tr -d '\n')
setting http.extraHeader "Authorization: Basic $basic"
identity=$(identity)
if [ -n "$identity" ]; then setting http.extraHeader "$identity"; fi
remote=$KB_BASE/acme/app.git
branch=from-$tenant-$$

git clone --quiet "$remote" "$work/one" 2>>"$work/log"
cd "$work/one"
git checkout --quiet -b "$branch"
head -c 20000000 /dev/urandom >pack.bin
git add pack.bin
git commit --quiet -m 'Twenty megabytes'
git push --quiet origin "$branch" 2>>"$work/log"

git clone --quiet --branch "$branch" "$remote" "$work/two" 2>>"$work/log"
expect "the pack" "$(sha256sum <"$work/two/pack.bin")" "$(sha256sum <pack.bin)"

# More than 1 KiB of have-lines makes git compress its request.
n=0
while [ $n -lt 40 ]; do git commit --quiet --allow-empty -m "local $n"; n=$((n + 1)); done
cd "$work/two"
git commit --quiet --allow-empty -m 'One more'
git push --quiet origin HEAD:"$branch-next" 2>>"$work/log"
cd "$work/one"
git fetch --quiet origin "$branch-next" 2>>"$work/log"
expect "the fetched commit" "$(git rev-parse FETCH_HEAD)" "$(git -C "$work/two" rev-parse HEAD)"

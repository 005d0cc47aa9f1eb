#!/bin/sh
# gh, GitHub's command line (Go): reads a repository and opens an issue.
client="gh"
. "$(dirname "$0")/kb.sh"
export GH_TOKEN="$secret" GH_CONFIG_DIR="$work/gh" GH_NO_UPDATE_NOTIFIER=1
identity=$(identity)

call() {
    gh api ${identity:+--header "$identity"} "$@" 2>>"$work/log"
}

expect "the repository" "$(call repos/acme/app --jq .tenant)" "$tenant"
expect "the issue" "$(call repos/acme/app/issues -f title=Broken --jq '.tenant + " " + .method + " " + .body')" \
    "$tenant POST {\"title\":\"Broken\"}"

#!/bin/sh
# npm: installs a package from the npm registry, of the scope KB_SCOPE (`@kb/`) where it is set.
client="npm"
. "$(dirname "$0")/kb.sh"
package=${KB_SCOPE:-}kb-tiny
cd "$work"

echo '{}' >package.json
npm install --no-audit --no-fund --no-update-notifier "$package" >"$work/log" 2>&1
expect "the package" "$(node -p "require('$package').trim()")" "$mark"

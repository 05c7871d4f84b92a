#!/usr/bin/env bash
# Installs the packages of package-lock.json into node_modules, where they are not there already.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
node --version | grep -qE '^v(2[0-9]|[3-9][0-9])\.' || {
    echo "tools.sh: the TypeScript SDK needs Node >= 20 with npm; \`node --version\` says $(node --version)" >&2
    exit 1
}
# npm leaves a copy of what it installed; a lock file that changed since then is newer.
[[ -d node_modules && node_modules/.package-lock.json -nt package-lock.json ]] && exit 0
npm ci --ignore-scripts --loglevel error
touch node_modules/.package-lock.json

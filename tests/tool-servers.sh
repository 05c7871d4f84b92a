#!/usr/bin/env bash
# Installs the MCP servers that the tests of node/tools talk to: real ones, as their makers publish them.
#
#   tests/tool-servers.sh [FOLDER]      (default .tools/tool-servers)
#
# From PyPI mcp-server-time, -git and -fetch; from npm @modelcontextprotocol/server-everything and server-filesystem.
# Versions are pinned below. Needs python3 with venv and pip; node and npm are installed from Debian where they are
# missing. Does nothing when everything is there already.
set -euo pipefail

python_packages=(mcp-server-time==2026.10.19 mcp-server-git==2026.10.19 mcp-server-fetch==2026.10.24)
npm_packages=(@modelcontextprotocol/server-everything@2026.8.31 @modelcontextprotocol/server-filesystem@2026.8.31)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$root/.tools/tool-servers}
wanted="${python_packages[*]} ${npm_packages[*]}"

say() { echo "tool-servers: $*"; }
fail() { say "$*" >&2; exit 1; }

if [[ "$(cat "$folder/installed.txt" 2>/dev/null)" == "$wanted" ]] && command -v node >/dev/null; then
    say "already in $folder"
    exit 0
fi
command -v python3 >/dev/null || fail "python3 is missing; install it with its venv module and run this again"
if ! command -v npm >/dev/null; then
    say "1/3 installing node and npm from Debian"
    [[ $(id -u) == 0 ]] || fail "npm is missing, and only root can install it; install nodejs and npm and run this again"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nodejs npm >/dev/null \
        || fail "apt cannot install nodejs and npm; install them and run this again"
fi

# Made in the place where it stays: environments of Python know their own path.
rm -rf "$folder"
mkdir -p "$folder"
say "2/3 ${python_packages[*]}"
python3 -m venv "$folder/python" || fail "python3 has no venv module; install it (python3-venv) and run this again"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check "${python_packages[@]}" \
    || fail "pip cannot reach the Python index; check its configuration and run this again"
say "3/3 ${npm_packages[*]}"
npm install --silent --no-audit --no-fund --prefix "$folder/node" "${npm_packages[@]}" \
    || fail "npm cannot reach its registry; check its configuration and run this again"
for server in python/bin/mcp-server-{time,git,fetch} node/node_modules/.bin/mcp-server-{everything,filesystem}; do
    [[ -x "$folder/$server" ]] || fail "$server was not installed; a package has changed its commands"
done
echo "$wanted" >"$folder/installed.txt"
say "installed in $folder"

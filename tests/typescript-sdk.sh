#!/usr/bin/env bash
# Checks the TypeScript SDK: types, and its tests with fake nodes and with real clusters that are killed under it.
#
#   tests/typescript-sdk.sh
#
# QUORATE_BIN names the binary (default target/debug/quorate, as `make build` makes it). Packages are installed once, as
# package-lock.json has them. Fails when anything does, or when there is no binary; never skips.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export QUORATE_BIN=${QUORATE_BIN:-$root/target/debug/quorate}
[[ "$QUORATE_BIN" == /* ]] || QUORATE_BIN=$PWD/$QUORATE_BIN
# What a person has set for the command line is not meant for tests.
unset QUORATE_ENDPOINT QUORATE_PROJECT QUORATE_API_KEY QUORATE_CA QUORATE_CERT QUORATE_CERT_KEY
started=$(date +%s)

say() { echo "typescript-sdk: $*"; }

if [[ ! -x "$QUORATE_BIN" ]]; then
    say "there is no binary at $QUORATE_BIN; build it with \`make build\`, or name one in QUORATE_BIN" >&2
    exit 1
fi
say "1/3 packages"
"$root/sdk/typescript/tools.sh"
cd "$root/sdk/typescript"
say "2/3 types"
npm run --silent lint
say "3/3 tests with ${QUORATE_BIN#"$root/"}"
npm test --silent
say "done in $(($(date +%s) - started)) s"

#!/usr/bin/env bash
# Checks the Python SDK: types, lints, and its tests with fake nodes and with real clusters that are killed under it.
#
#   tests/python-sdk.sh [PYTEST ARGUMENTS]
#
# QUORATE_BIN names the binary (default target/debug/quorate, as `make build` makes it). Tools are installed once into
# .tools/python-sdk. Fails when anything does, or when there is no binary; never skips.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export QUORATE_BIN=${QUORATE_BIN:-$root/target/debug/quorate}
[[ "$QUORATE_BIN" == /* ]] || QUORATE_BIN=$PWD/$QUORATE_BIN
sdk=$root/sdk/python
bin=$root/.tools/python-sdk/bin
started=$(date +%s)

say() { echo "python-sdk: $*"; }

if [[ ! -x "$QUORATE_BIN" ]]; then
    say "there is no binary at $QUORATE_BIN; build it with \`make build\`, or name one in QUORATE_BIN" >&2
    exit 1
fi
say "1/4 tools"
"$sdk/tools.sh"
cd "$sdk"
say "2/4 format and lints"
"$bin/ruff" format --config pyproject.toml --check --quiet . "$root/examples/python"
"$bin/ruff" check --config pyproject.toml --quiet . "$root/examples/python"
say "3/4 types"
"$bin/mypy" src
# pytest itself is written for a newer Python than the package needs.
"$bin/mypy" --python-version 3.10 tests "$root/examples/python"
say "4/4 tests with ${QUORATE_BIN#"$root/"}"
"$bin/pytest" "$@"
say "done in $(($(date +%s) - started)) s"

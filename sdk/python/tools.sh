#!/usr/bin/env bash
# Puts the pinned tools of requirements-dev.txt into .tools/python-sdk. Does nothing when they are there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(cd "$here/../.." && pwd)/.tools/python-sdk

cmp -s "$here/requirements-dev.txt" "$folder/installed.txt" && exit 0
command -v python3 >/dev/null || { echo "python-sdk: python3 is missing; install it with its venv module" >&2; exit 1; }
echo "python-sdk: installing the tools into ${folder#"$PWD/"}" >&2
rm -rf "$folder"
python3 -m venv "$folder" || { echo "python-sdk: python3 has no venv module; install it (python3-venv)" >&2; exit 1; }
"$folder/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements-dev.txt" \
    || { echo "python-sdk: pip cannot reach the Python index; check its configuration and run this again" >&2; exit 1; }
cp "$here/requirements-dev.txt" "$folder/installed.txt"

#!/usr/bin/env bash
# Fetches the vocabularies and chat templates that the tokenizer's tests compare with: real ones of many model
# families, with the tokens that the reference implementation gives for some texts.
#
#   tests/vocabularies.sh [FOLDER]      (default .tools/vocabularies)
#
# They lie in the source archive of the Python package llama-cpp-python, which any mirror of the Python index
# carries (70 MB, kept only while it is unpacked). Needs python3 with venv and pip; nothing is compiled. Does
# nothing when they are there already.
set -euo pipefail

package=llama-cpp-python
version=0.3.36

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$root/.tools/vocabularies}

fail() { echo "vocabularies: $*" >&2; exit 1; }

if [[ "$(cat "$folder/version" 2>/dev/null)" == "$package $version" ]]; then
    echo "vocabularies: already in $folder"
    exit 0
fi
command -v python3 >/dev/null || fail "python3 is missing; install it with its venv module and run this again"

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT

# pip asks a source archive for its metadata even when it only downloads it. With the packager and cmake (of which
# only the version is asked) at hand in an environment of its own, that takes no compiler.
echo "vocabularies: 1/3 preparing pip"
python3 -m venv "$work/venv" || fail "python3 has no venv module; install it (python3-venv) and run this again"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scikit-build-core cmake \
    || fail "pip cannot reach the Python index; check its configuration and run this again"

echo "vocabularies: 2/3 downloading the source archive of $package $version (70 MB)"
"$work/venv/bin/pip" download --disable-pip-version-check --progress-bar on --no-deps --no-build-isolation \
    --no-binary :all: --dest "$work" "$package==$version" \
    || fail "pip cannot download $package $version; check its configuration and run this again"

echo "vocabularies: 3/3 unpacking"
python3 - "$work" <<'PYTHON'
import pathlib, sys, tarfile

work = pathlib.Path(sys.argv[1])
(archive,) = work.glob("*.tar.gz")
wanted = (".gguf", ".inp", ".out", ".jinja")
with tarfile.open(archive) as tar:
    for member in tar:
        _, found, path = member.name.partition("/vendor/llama.cpp/models/")
        if found and member.isfile() and path.endswith(wanted) and ".." not in path:
            target = work / "new" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tar.extractfile(member).read())
PYTHON
[[ -f "$work/new/ggml-vocab-llama-spm.gguf" ]] || fail "the archive of $package $version holds no vocabularies"
echo "$package $version" >"$work/new/version"
rm -rf "$folder"
mv "$work/new" "$folder"
echo "vocabularies: $(find "$folder" -name '*.gguf' | wc -l) vocabularies and $(find "$folder" -name '*.jinja' | wc -l) templates in $folder"

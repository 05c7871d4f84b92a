#!/usr/bin/env bash
# Makes the stubs in src/quorate/_proto from the protos of the API.
#
#   sdk/python/generate.sh [FOLDER]     (default src/quorate/_proto)
#
# Uses the pinned generator in .tools/python-sdk and installs it there when it is missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:-$here/src/quorate/_proto}
bin=$root/.tools/python-sdk/bin

"$here/tools.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# protoc sees the files below quorate/_proto, and so do their imports of one another, so that the generated code imports
# from there. Packages of the API stay as the files say.
protos=$work/protos
stubs=$work/stubs
mkdir -p "$protos/quorate/_proto" "$stubs"
for proto in "$root"/proto/quorate/v1/*.proto "$here"/proto/*.proto; do
    sed 's|^import "quorate/v1/|import "quorate/_proto/|' "$proto" >"$protos/quorate/_proto/${proto##*/}"
done
(
    cd "$protos"
    PATH="$bin:$PATH" "$bin/python" -m grpc_tools.protoc "-I." \
        "-I$("$bin/python" -c 'import grpc_tools, os; print(os.path.join(os.path.dirname(grpc_tools.__file__), "_proto"))')" \
        "--python_out=$stubs" "--mypy_out=quiet:$stubs" "--grpc_python_out=$stubs" "--mypy_grpc_out=quiet:$stubs" \
        quorate/_proto/*.proto
)
rm -f "$stubs"/quorate/_proto/error_details_pb2_grpc.py*

mkdir -p "$folder"
rm -f "$folder"/*_pb2*.py "$folder"/*_pb2*.pyi
cp "$stubs"/quorate/_proto/* "$folder/"

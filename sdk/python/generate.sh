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

# protoc sees the files below quorate/_proto, so that the generated code imports them from there. Packages of the API
# stay as the files say.
PATH="$bin:$PATH" "$bin/python" -m grpc_tools.protoc \
    "-Iquorate/_proto=$root/proto/quorate/v1" "-Iquorate/_proto=$here/proto" \
    "-I$("$bin/python" -c 'import grpc_tools, os; print(os.path.join(os.path.dirname(grpc_tools.__file__), "_proto"))')" \
    "--python_out=$work" "--mypy_out=quiet:$work" "--grpc_python_out=$work" "--mypy_grpc_out=quiet:$work" \
    $(cd "$root/proto/quorate/v1" && printf 'quorate/_proto/%s ' *.proto) quorate/_proto/error_details.proto
rm -f "$work"/quorate/_proto/error_details_pb2_grpc.py*

mkdir -p "$folder"
rm -f "$folder"/*_pb2*.py "$folder"/*_pb2*.pyi
cp "$work"/quorate/_proto/* "$folder/"

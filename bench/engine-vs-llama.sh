#!/usr/bin/env bash
# Our engine beside llama.cpp on this machine: speed, interleaved, and quality. Writes bench/results/DATE-engine.md.
#
#   bench/engine-vs-llama.sh [--repeats 5] [--threads 1,2] [--nice N] [--kl] [--golden]
#
#   --kl      also the divergence of both from 32-bit floats (needs numpy, takes minutes)
#   --golden  writes llama.cpp's figures where the test in CI reads them
#
# LLAMA_DIR: where llama.cpp's tools are or shall be built (default bench/peers/llama, about ten minutes).
# QUORATE_MODEL: a GGUF file (default: the one that `quorate model pull smollm2` fetched).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

llama=${LLAMA_DIR:-bench/peers/llama}
home=${QUORATE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/quorate}
model=${QUORATE_MODEL:-$home/models/smollm2.gguf}
[[ -f "$model" ]] || { echo "no model at $model; run \`make model\` first, or set QUORATE_MODEL" >&2; exit 1; }

bench/peers/install-llama.sh "$llama"
cargo build --release --quiet -p worker-inference --example figures
figures=${CARGO_TARGET_DIR:-target}/release/examples/figures

exec python3 bench/compare.py --llama "$llama" --figures "$figures" --model "$model" "$@"

#!/usr/bin/env bash
# Our engine beside llama.cpp and vLLM on this machine: speed, interleaved, and quality. Writes
# bench/results/DATE-engine.md.
#
#   bench/engine-vs-llama.sh [--repeats 5] [--threads 1,2] [--nice N] [--kl] [--golden] [--no-quality]
#
#   --kl          also the divergence of both from 32-bit floats (needs numpy, takes minutes)
#   --golden      writes llama.cpp's figures where the test in CI reads them
#   --no-quality  speed only
#
# A round of two threads takes about two minutes; quality about three.
#
# LLAMA_DIR: where llama.cpp's tools are or shall be built (default bench/peers/llama, about ten minutes).
# VLLM_DIR: where bench/peers/install-vllm.sh installed vLLM; without it vLLM is left out.
# QUORATE_MODEL: a GGUF file (default: the one that `quorate model pull smollm2` fetched).
# QUORATE_GEMMA: gemma-3-270m in Q4_K_M, measured too where it is given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

llama=${LLAMA_DIR:-bench/peers/llama}
home=${QUORATE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/quorate}
model=${QUORATE_MODEL:-$home/models/smollm2.gguf}
[[ -f "$model" ]] || { echo "no model at $model; run \`make model\` first, or set QUORATE_MODEL" >&2; exit 1; }

bench/peers/install-llama.sh "$llama"
cargo build --release --quiet -p quorate
cargo build --release --quiet -p worker-inference --example figures
cargo build --release --quiet -p kernels --example peak
target=${CARGO_TARGET_DIR:-target}/release

more=()
[[ -z "${VLLM_DIR:-}" ]] || more+=(--vllm "$VLLM_DIR")
[[ -z "${QUORATE_GEMMA:-}" ]] || more+=(--gemma "$QUORATE_GEMMA")
exec python3 bench/compare.py --llama "$llama" --figures "$target/examples/figures" --quorate "$target/quorate" \
    --peak "$target/examples/peak" --model "$model" "${more[@]}" "$@"

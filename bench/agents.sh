#!/usr/bin/env bash
# A fleet of agents against our engine, llama-server and vLLM, taking turns. Writes bench/results/DATE-agents.md.
#
#   bench/agents.sh [--rounds 3] [--agents 16] [--only ours,vllm] [--threads 2] [options of agents_load.py]
#
# Three rounds of 16 agents take about 25 minutes, most of them llama-server's. All servers are started once; those
# whose turn it is not are stopped (SIGSTOP), so that they take nothing from the one that is measured.
#
# LLAMA_DIR, VLLM_DIR: where the peers are or shall be installed (default bench/peers/llama, bench/peers/vllm; the
# installations take ten minutes of compiling, and 6 GB). QUORATE_MODEL: a GGUF file of the llama family.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=${QUORATE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/quorate}
model=${QUORATE_MODEL:-$home/models/smollm2.gguf}
[[ -f "$model" ]] || { echo "no model at $model; run \`make model\` first, or set QUORATE_MODEL" >&2; exit 1; }

llama=${LLAMA_DIR:-bench/peers/llama}
vllm=${VLLM_DIR:-bench/peers/vllm}
[[ " $* " == *" --only "* && ",$*," != *llama* ]] || bench/peers/install-llama.sh "$llama"
[[ " $* " == *" --only "* && ",$*," != *vllm* ]] || bench/peers/install-vllm.sh "$vllm"
target=${CARGO_TARGET_DIR:-target}/release
cargo build --release --quiet -p quorate
cargo build --release --quiet -p kernels --example peak

exec python3 bench/agents.py --llama "$llama" --vllm "$vllm" --model "$model" \
    --quorate "$target/quorate" --peak "$target/examples/peak" "$@"

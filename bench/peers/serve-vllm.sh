#!/usr/bin/env bash
# Serves a GGUF file of the llama family by vLLM on the processor, in the foreground; ready after about two minutes.
#
#   bench/peers/serve-vllm.sh FOLDER GGUF [PORT]      (FOLDER as given to install-vllm.sh; PORT 8000)
#
# The weights are dequantised to bf16 once, into FOLDER/model-DIGEST, because vLLM's CPU backend reads no GGUF.
# THREADS (2) are bound to the first cores; KV_GIB (4) is room for keys and values, 186,368 tokens of SmolLM2.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -ge 2 ]] || { echo "usage: serve-vllm.sh FOLDER GGUF [PORT]" >&2; exit 2; }
folder=$(cd "$1" && pwd)
gguf=$2
port=${3:-8000}
threads=${THREADS:-2}

digest=$(sha256sum "$gguf" | cut -c1-12)
weights=$folder/model-$digest
[[ -f "$weights/config.json" ]] || "$folder/bin/python" "$here/gguf2hf.py" "$gguf" "$weights"

export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 VLLM_TARGET_DEVICE=cpu
export VLLM_CPU_KVCACHE_SPACE=${KV_GIB:-4} VLLM_CPU_NUM_OF_RESERVED_CPU=0
export VLLM_CPU_OMP_THREADS_BIND=0-$((threads - 1)) OMP_NUM_THREADS=$threads
export LD_PRELOAD=$folder/lib/libiomp5.so
exec "$folder/bin/vllm" serve "$weights" --served-model-name default --host 127.0.0.1 --port "$port" \
    --dtype bfloat16 --max-model-len 4096 --max-num-seqs 32 \
    --enable-prefix-caching --enable-prompt-tokens-details --no-enable-log-requests

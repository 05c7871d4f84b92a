#!/usr/bin/env bash
# Recorded traffic through the engine's own decisions, in virtual time: what is found again and what is computed
# again under each eviction policy. Writes bench/results/DATE-replay.md; the figures are the same on every machine.
# Usage: bench/replay.sh [DATE]   QUORATE_TEST_DATA: folder of the traces [../shared/data]  MODEL: tokenizer [smollm2]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
date=${1:-$(date +%F)}
data=${QUORATE_TEST_DATA:-../shared/data}
model=${MODEL:-smollm2}
[ -d "$data" ] || { echo "the traces are not in $data; set QUORATE_TEST_DATA" >&2; exit 1; }

cargo build --release -p quorate
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
replay() { # NAME FORMAT TRACE OPTION...
    local name=$1 format=$2 trace=$3; shift 3
    local begin=$EPOCHREALTIME
    ./target/release/quorate engine replay -o json --format "$format" "$data/$trace" "$@" > "$work/$name.json"
    awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }' > "$work/$name.seconds"
}
replay mooncake mooncake mooncake/synthetic_trace.jsonl --blocks 1000,2500,5000,10000,20000
replay miniswe miniswe miniswe
replay tokens miniswe miniswe -m "$model"
replay seed miniswe miniswe --seed 2
replay azure azure azure-llm/AzureLLMInferenceTrace_code.csv
replay azure-fast azure azure-llm/AzureLLMInferenceTrace_code.csv --prefill-tok-s 8000

python3 bench/replay.py "$work" "$data" > "bench/results/$date-replay.md"
echo "bench/results/$date-replay.md"

#!/usr/bin/env bash
# The evaluator on real data: labelled evidence, sessions of agents, masked against exact removal, cost, removal by value.
# Writes bench/results/DATE-evaluator.md and the plots docs/images/evaluator-*.svg. Two cores need hours for all of it; SAMPLE says
# how many calls of each set are looked at, chosen by a fixed seed.
# Usage: bench/evaluator.sh [DATE]   QUORATE_TEST_DATA: folder of the data sets [../shared/data]  SAMPLE [40]
#        MODELS ["smollm2 gemma3-270m"]  QUORATE: a binary that is built already
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
date=${1:-$(date +%F)}
data=${QUORATE_TEST_DATA:-../shared/data}
sample=${SAMPLE:-40}
[ -d "$data" ] || { echo "the data sets are not in $data; set QUORATE_TEST_DATA" >&2; exit 1; }
if [ -z "${QUORATE:-}" ]; then
    cargo build --release -p quorate
    QUORATE=target/release/quorate
fi
cargo build --release -p worker-inference --example evaluate-cost
out=target/evaluator
say() { python3 bench/evaluator.py "$@"; }
common=(--quorate "$QUORATE" --data "$data" --out "$out")
gguf=$(python3 -c 'import os; print(os.environ.get("QUORATE_HOME") or os.path.expanduser("~/.local/share/quorate"))')/models/smollm2.gguf
{
    echo "# The evaluator on real data, $date"
    echo
    echo "Made by \`SAMPLE=$sample bench/evaluator.sh\` on $(nproc) cores."
    for model in ${MODELS:-smollm2 gemma3-270m}; do
        for wording in asked plain notes quiz; do
            say bfcl "${common[@]}" -m "$model" --wording "$wording" --sample "$sample"
        done
        say bfcl "${common[@]}" -m "$model" --wording asked --rule alike --sample "$sample"
    done
    for more in "" --independent; do
        say bfcl "${common[@]}" --wording asked --sample "$sample" --exact $more
        say planted "${common[@]}" --seeds 14 --exact $more
    done
    for of in miniswe tau; do
        say sessions "${common[@]}" --of "$of" --sample "$sample"
        say sessions "${common[@]}" --of "$of" --sample "$sample" --exact
        say suggest "${common[@]}" --of "$of" --sample "$sample"
    done
    say masked $(ls "$out"/*-exact-*.json | grep -v independent) --svg docs/images/evaluator-masked.svg
    say masked "$out"/*-independent-*.json
    say verdicts $(ls "$out"/{miniswe,tau}-*.json | grep -v exact) --svg docs/images/evaluator-verdicts.svg
    say growth --svg docs/images/evaluator-growth.svg
    say cost --example target/release/examples/evaluate-cost -m "$gguf" --svg docs/images/evaluator-cost.svg
} > "bench/results/$date-evaluator.md"
echo "bench/results/$date-evaluator.md"

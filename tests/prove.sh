#!/usr/bin/env bash
# The long proofs: optimised binaries, full seeds, cut points and kill series. Prints dated results, and ends with 1
# when anything failed. Every length can be set: QUORATE_CUTS, SIM_SEEDS, QUORATE_KILLS, FUZZ_SECONDS.
set -u -o pipefail
cd "$(dirname "$0")/.."
export QUORATE_CUTS="${QUORATE_CUTS:-300}" SIM_SEEDS="${SIM_SEEDS:-300}" QUORATE_KILLS="${QUORATE_KILLS:-20}"
export FUZZ_SECONDS="${FUZZ_SECONDS:-1800}" FUZZ_SEED="${FUZZ_SEED:-time}"
export QUORATE_TOOL_KILLS="${QUORATE_TOOL_KILLS:-50}" QUORATE_FLAT_TURNS="${QUORATE_FLAT_TURNS:-500}"
export QUORATE_LOCAL_KILLS="${QUORATE_LOCAL_KILLS:-50}"
export RUST_BACKTRACE="${RUST_BACKTRACE:-0}"
results="${PROVE_RESULTS:-target/prove-$(date -u +%Y-%m-%dT%H%M%SZ).txt}"
mkdir -p "$(dirname "$results")"
failed=0

say() { printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" | tee -a "$results"; }

# prove NAME COMMAND...: runs it, says how it ended and how long it took, and lists the figures it printed.
prove() {
    local name="$1" log begun ended
    shift
    log="$(mktemp)"
    begun=$(date +%s)
    if "$@" >"$log" 2>&1; then ended=passed; else ended=FAILED; failed=1; fi
    say "$name $ended in $(($(date +%s) - begun)) s: $*"
    if [ "$ended" = FAILED ]; then tail -n 60 "$log" | tee -a "$results"; fi
    # Each figure once: how many values, the least, the median, the most.
    grep -hoE '^figure [a-z_]+ [0-9]+' "$log" | sort -k2,2 -k3,3n | awk '
        function tell() { if (n) printf "    %s: %d values, least %d, median %d, most %d\n", name, n, v[1], v[int((n + 1) / 2)], v[n] }
        $2 != name { tell(); name = $2; n = 0 }
        { v[++n] = $3 }
        END { tell() }' | tee -a "$results"
    rm -f "$log"
}

say "commit $(git rev-parse --short HEAD 2>/dev/null || echo none), $(nproc) cores, $(uname -sr)"
say "cuts $QUORATE_CUTS, seeds $SIM_SEEDS, kills $QUORATE_KILLS, fuzzing $FUZZ_SECONDS s each"

nextest=(cargo nextest run --profile prove --release --no-capture --color never)
prove build cargo build --release -p quorate
# Random tests with other cases than those of `make test`.
properties() {
    local first last
    first=$(date +%s) last=$(($(date +%s) + ${QUORATE_DRAWS:-50}))
    for ((seed = first; seed < last; seed++)); do
        PROPTEST_RNG_SEED=$seed "${nextest[@]}" -p ledger -p mind -p context -p evaluate -p memory -p providers || return 1
    done
}
prove properties properties
# Every load of the kernels with std's checks, which no other build makes.
prove kernels cargo nextest run --profile prove --release --no-capture --color never -p kernels \
    --config profile.release.package.kernels.debug-assertions=true --target-dir target/checked
prove cut-points "${nextest[@]}" -p coordinator -p node -p sys -E 'test(/unsynced|crash|cut/)'
prove simulator make sim SEEDS="$SIM_SEEDS"
prove leader-kills env QUORATE_KILLS="${QUORATE_LEADER_KILLS:-50}" "${nextest[@]}" -p quorate-tests -E 'test(/leader_kill/)'
prove transfers env QUORATE_TRANSFERS=20 "${nextest[@]}" -p quorate-tests -E 'test(/transfer/)'
# An upgrade from the newest tag before this commit, or from OLD_REF, back and again; without either there is nothing to do.
if [ -n "${OLD_REF:-$(git describe --tags --abbrev=0 HEAD^ 2>/dev/null)}" ]; then
    prove upgrade deploy/test-upgrade.sh
else
    say "upgrade left out: no tag before HEAD; OLD_REF=TAG_OR_COMMIT names what to upgrade from"
fi
prove rolling "${nextest[@]}" -p quorate-tests -E 'test(/^(rotation|capacity)::/) | test(every_node_is_restarted)'
# The local engine's tasks go on to the letter wherever their node dies.
prove failover "${nextest[@]}" -p quorate-tests -E 'test(/^failover::/)'
prove clocks env QUORATE_JUMPS=5 "${nextest[@]}" -p quorate-tests -E 'test(/clocks/)'
prove busy env QUORATE_BUSY_SECONDS="${QUORATE_BUSY_SECONDS:-600}" "${nextest[@]}" -p quorate-tests -E 'test(/busy/)'
prove backup "${nextest[@]}" -p quorate-tests -E 'test(/backup/)'
prove worker-kills "${nextest[@]}" -p quorate-tests -E 'test(/worker_kill/)'
prove freezes "${nextest[@]}" -p quorate-tests -E 'test(/freeze/)'
prove all-killed "${nextest[@]}" -p quorate-tests -E 'test(/all_killed/)'
# From tests/it/tools.rs: killed workers, and steps at the end of a long history.
prove tools "${nextest[@]}" -p quorate-tests -E 'test(/^tools::/)'
# Trees that are cancelled, a thousand tasks held back, a watch that is cut a thousand times.
prove crowds env QUORATE_TREES=10 QUORATE_WATCH_CUTS=1000 "${nextest[@]}" -p quorate-tests -E 'test(/^crowds::/)'
# Agents by the thousand: what they cost, and how soon they react.
prove living env QUORATE_LIVE_AGENTS=2000 QUORATE_RESTING_AGENTS="${QUORATE_RESTING_AGENTS:-50000}" "${nextest[@]}" -p quorate-tests -E 'test(/^living::/)'
prove forced-calls env QUORATE_CALLS=1000 "${nextest[@]}" -p node -E 'test(/calls_that_are_forced/)'
prove budgets env QUORATE_BUDGETS=1000 "${nextest[@]}" -p node -E 'test(/random_budgets/)'
prove recall env QUORATE_RECALL_SCOPES=5 "${nextest[@]}" -p memory -E 'test(/recall/)'
prove evidence env QUORATE_QUESTIONS=4 "${nextest[@]}" -p quorate-tests -E 'test(/labelled_evidence/)'
prove idle "${nextest[@]}" -p quorate-tests -E 'test(/idle/)'
prove real-model "${nextest[@]}" -p quorate-tests -E 'test(/real_model/)'
# The readers of hostile input: model files, texts, templates, HTTP bodies. All at the same time, so that the whole
# takes FUZZ_SECONDS.
prove fuzz "${nextest[@]}" --test-threads 8 -p worker-inference -p node -E 'binary(fuzz) | test(/fuzz_test/)'

# What fleets ask of an engine, with times; these want a machine that does nothing else.
model="${QUORATE_MODEL:-${QUORATE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/quorate}/models/smollm2.gguf}"
prove build-fleet cargo build --release -p worker-inference --example fleet
for load in overload forks projects one-more; do
    prove "fleet-$load" "${CARGO_TARGET_DIR:-target}/release/examples/fleet" "$load" "$model"
done

say "results are in $results"
exit "$failed"

#!/usr/bin/env bash
# Runs the tests of `providers` against real servers on this machine.
#
#   tests/providers-peers.sh
#
# QUORATE        our binary (default target/debug/quorate, then target/release/quorate)
# MODEL          a GGUF file (default: the pulled smollm2)
# LLAMA_SERVER   llama.cpp's server (default bench/peers/llama/bin/llama-server; bench/peers/install-llama.sh builds it)
# LLAMA_PYTHON   a Python that has llama-cpp-python[server] (python3 -m venv V && V/bin/pip install 'llama-cpp-python[server]')
# QUORATE_PROVIDER_PEERS   more servers, as NAME=URL=MODEL
# PROVIDERS_TEST  the test's binary, if it is built already
#
# A server that is not there is named and left out; ours must be there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quorate=${QUORATE:-$(ls target/debug/quorate target/release/quorate 2>/dev/null | head -1 || true)}
model=${MODEL:-${QUORATE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/quorate}/models/smollm2.gguf}
llama_server=${LLAMA_SERVER:-bench/peers/llama/bin/llama-server}
[[ -x "$quorate" ]] || { echo "providers-peers: no binary; run make build, or set QUORATE" >&2; exit 1; }
[[ -f "$model" ]] || { echo "providers-peers: no $model; run make model, or set MODEL" >&2; exit 1; }

folder=$(mktemp -d)
started=()
stop() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# start NAME PORT MODEL COMMAND...: starts a server and waits until it lists its models.
start() {
    local name=$1 port=$2 served=$3 waited=0
    shift 3
    "$@" >"$folder/$name.log" 2>&1 &
    started+=($!)
    until curl -sf "http://127.0.0.1:$port/v1/models" >/dev/null; do
        kill -0 "${started[-1]}" 2>/dev/null || { echo "providers-peers: $name died:" >&2; tail -5 "$folder/$name.log" >&2; exit 1; }
        ((waited += 1)) && ((waited < 600)) || { echo "providers-peers: $name does not answer" >&2; exit 1; }
        sleep 0.2
    done
    peers+=" $name=http://127.0.0.1:$port/v1=$served"
    echo "$name listens on port $port"
}

peers=${QUORATE_PROVIDER_PEERS:-}
port=$(free_port)
start quorate "$port" "$(basename "$model" .gguf)" "$quorate" engine serve -m "$model" --listen "127.0.0.1:$port" -t 1
if [[ -x "$llama_server" ]]; then
    port=$(free_port)
    start llama-server "$port" any "$llama_server" -m "$model" --host 127.0.0.1 --port "$port" -t 1 -c 8192 -np 4 --jinja
else
    echo "left out: llama-server (bench/peers/install-llama.sh builds it, LLAMA_SERVER names it)"
fi
if [[ -n "${LLAMA_PYTHON:-}" ]]; then
    port=$(free_port)
    # By itself it cuts an answer when the next request arrives.
    start llama-cpp-python "$port" any "$LLAMA_PYTHON" -m llama_cpp.server --model "$model" --host 127.0.0.1 --port "$port" \
        --n_ctx 2048 --n_threads 1 --interrupt_requests False
else
    echo "left out: llama-cpp-python (LLAMA_PYTHON names a Python that has it)"
fi

export QUORATE_PROVIDER_PEERS=$peers
if [[ -n "${PROVIDERS_TEST:-}" ]]; then
    "$PROVIDERS_TEST" peers:: --nocapture --test-threads=1
else
    cargo nextest run -p providers --no-capture -E 'test(/peers::/)'
fi

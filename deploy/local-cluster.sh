#!/usr/bin/env bash
# A real cluster on this machine: three coordinators and two workers as separate processes on loopback.
#
#   deploy/local-cluster.sh up       starts what does not run; founds the cluster the first time
#   deploy/local-cluster.sh down     stops it; the data stays, so `up` goes on where it was
#   deploy/local-cluster.sh status   shows the processes and the cluster; exits 0 when all five are ready
#
# QUORATE_CLUSTER_DIR  where configurations, data and logs are (default ./.local-cluster; remove it to start anew)
# QUORATE_BIN          the program (default target/release/quorate beside this script's folder)
# Clients: ports 7400, 7410, ... 7440; between nodes: one above; /metrics and /readyz: 80 above.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${QUORATE_BIN:-$here/../target/release/quorate}
dir=${QUORATE_CLUSTER_DIR:-./.local-cluster}
names=(coordinator-1 coordinator-2 coordinator-3 worker-1 worker-2)
ready_s=60 # a cold start loads and repacks a model on a busy machine
stop_s=40  # a worker may take 20 s to bring its tasks to a step boundary

fail() {
    echo "local-cluster: $*" >&2
    exit 1
}

port_of() { # NAME -> the port for clients
    local i
    for i in "${!names[@]}"; do
        if [[ ${names[i]} == "$1" ]]; then
            echo $((7400 + 10 * i))
            return
        fi
    done
}

endpoints() {
    local name list=()
    for name in "${names[@]}"; do list+=("127.0.0.1:$(port_of "$name")"); done
    (IFS=, && echo "${list[*]}")
}

quorate() { QUORATE_ENDPOINT=$(endpoints) "$bin" "$@"; }

# The process of a node, if it is still ours: ids are given again to others.
pid_of() {
    local pid
    pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 1
    [[ -n $pid && -r /proc/$pid/cmdline ]] || return 1
    tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$dir/$1.toml" || return 1
    echo "$pid"
}

# Waits until a command succeeds: until SECONDS WHAT COMMAND...
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || fail "waited in vain for: $what; see $dir/*.log"
        sleep 0.1
    done
}

# Whether a page answers 200. Needs nothing but the shell.
page() {
    local line
    { exec 9<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&9
    read -r -t 5 line <&9 || line=
    exec 9>&- 9<&-
    [[ $line == *" 200 "* ]]
}

# Like `page`, but gives up at once when the process has ended.
serves() {
    pid_of "$1" >/dev/null || fail "$1 has ended: $(tail -n 3 "$dir/$1.log" 2>/dev/null)"
    page $(($(port_of "$1") + 80)) "$2"
}

write_config() {
    local name=$1 port role=worker join='["127.0.0.1:7401", "127.0.0.1:7411", "127.0.0.1:7421"]' threads
    port=$(port_of "$name")
    [[ $name == coordinator-* ]] && role=coordinator
    [[ $name == coordinator-1 ]] && join='[]'
    # Two workers share this machine's cores.
    threads=$(($(nproc) / 2))
    cat >"$dir/$name.toml" <<TOML
# Written by local-cluster.sh; every key is explained in deploy/config/.
name = "$name"
roles = ["$role"]
data_dir = "$dir/$name"
join = $join

[listen]
clients = "127.0.0.1:$port"
internal = "127.0.0.1:$((port + 1))"
http = "127.0.0.1:$((port + 80))"

[engine]
threads = $((threads > 0 ? threads : 1))
TOML
}

start() {
    local name=$1
    pid_of "$name" >/dev/null && return
    [[ -f $dir/$name.toml ]] || write_config "$name"
    nohup "$bin" start --config "$dir/$name.toml" >>"$dir/$name.log" 2>&1 </dev/null 9>&- &
    echo $! >"$dir/$name.pid"
    # Until then the process is still this shell, and not to be told from a foreign one.
    until_true 5 "$name to begin" began "$name" $!
}

began() { pid_of "$1" >/dev/null || ! kill -0 "$2" 2>/dev/null; }

is_founded() { quorate cluster status >/dev/null 2>&1; }

has_three_voters() {
    local voters
    voters=$(quorate cluster status -o json 2>/dev/null | tr -d ' \n' | grep -o '"voters":\[[^]]*\]') || return 1
    [[ $(grep -o '"' <<<"$voters" | wc -l) -eq $((2 + 2 * 3)) ]]
}

up() {
    local name
    [[ -x $bin ]] || fail "there is no program at $bin; run \`cargo build --release -p quorate\` or set QUORATE_BIN"
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    start coordinator-1
    until_true $ready_s "coordinator-1 to run" serves coordinator-1 /healthz
    if [[ ! -e $dir/founded ]]; then
        QUORATE_ENDPOINT=127.0.0.1:7400 "$bin" cluster init >/dev/null || is_founded ||
            fail "the cluster could not be founded; see $dir/coordinator-1.log"
        touch "$dir/founded"
    fi
    for name in "${names[@]:1}"; do start "$name"; done
    for name in "${names[@]}"; do until_true $ready_s "$name to be ready" serves "$name" /readyz; done
    until_true $ready_s "three voters" has_three_voters
    echo "local-cluster: up, data in $dir"
    echo "export QUORATE_ENDPOINT=$(endpoints)"
}

gone() { ! pid_of "$1" >/dev/null; }

# Stops nodes together, and waits for each.
stop() {
    local name pid deadline=$((SECONDS + stop_s))
    for name in "$@"; do
        if pid=$(pid_of "$name"); then kill -TERM "$pid" 2>/dev/null || true; fi
    done
    for name in "$@"; do
        until gone "$name" || ((SECONDS >= deadline)); do sleep 0.1; done
        if pid=$(pid_of "$name"); then
            echo "local-cluster: $name did not stop within ${stop_s} s and is killed" >&2
            kill -KILL "$pid" 2>/dev/null || true
            until_true 10 "$name to end" gone "$name"
        fi
        rm -f "$dir/$name.pid"
    done
}

down() {
    [[ -d $dir ]] || return 0
    dir=$(cd "$dir" && pwd)
    # Workers first, while there is a leader to give their leases back to.
    stop worker-1 worker-2
    stop coordinator-3 coordinator-2
    stop coordinator-1
    echo "local-cluster: down, data in $dir"
}

status() {
    local name pid state all=0
    [[ -d $dir ]] && dir=$(cd "$dir" && pwd)
    for name in "${names[@]}"; do
        if ! pid=$(pid_of "$name"); then
            pid=- state=stopped all=1
        elif page $(($(port_of "$name") + 80)) /readyz; then
            state=ready
        else
            state="not ready" all=1
        fi
        printf '%-15s %-8s %-10s 127.0.0.1:%s\n' "$name" "$pid" "$state" "$(port_of "$name")"
    done
    if ((all == 0)); then quorate cluster status || all=1; fi
    return $all
}

case ${1:-} in
up | down | status) "$1" ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

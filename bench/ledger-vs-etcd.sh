#!/usr/bin/env bash
# Durable creations a second beside etcd's puts: three members of each on loopback, on the same disk, in turns.
# Needs Debian's etcd-server (apt-get install etcd-server). Arguments go to the program:
#   bench/ledger-vs-etcd.sh --rounds 3 --seconds 6
# WORK is where both keep their data (default target/ledger-vs-etcd): it must be a disk, not memory.
set -eu -o pipefail
cd "$(dirname "$0")/.."
work="${WORK:-target/ledger-vs-etcd}"
mkdir -p "$work"
if [ -z "${QUORATE:-}" ]; then
    cargo build --release -p quorate -p creators
    QUORATE="${CARGO_TARGET_DIR:-target}/release/quorate"
fi
creators="$(dirname "$QUORATE")/creators"
etcd="$(command -v etcd || true)"
[ -n "$etcd" ] || { echo "there is no etcd: apt-get install etcd-server" >&2; exit 1; }
echo "# The ledger beside etcd, $(date -u +%Y-%m-%dT%H:%MZ)"
echo
echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo none); $("$etcd" --version | head -n 1); $(nproc) cores," \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); $(uname -sr); load $(cut -d' ' -f1 /proc/loadavg);" \
    "disk $(df --output=source,fstype "$work" | tail -n 1 | tr -s ' ')"
echo "command: bench/ledger-vs-etcd.sh $*"
echo
TMPDIR="$PWD/$work" "$creators" --quorate "$QUORATE" --etcd "$etcd" "$@"

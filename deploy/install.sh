#!/usr/bin/env bash
# Installs Quorate on this machine from the folder this script is in. Safe to repeat: what is there is kept or replaced by
# the same, a configuration that exists is never touched.
#
#   install.sh [--role coordinator|worker|worker-tools --name NAME --address HOST] [options]
#   install.sh --uninstall        stops and removes programs and units; keeps /etc/quorate and /var/lib/quorate
#
#   --role ROLE       which configuration and unit to prepare; without it only files are installed
#   --name NAME       the node's name, unique in the cluster and kept for the life of its data
#   --address HOST    the address that others reach this machine at (default 127.0.0.1)
#   --port N          for clients; N+1 is between nodes, N+80 is /metrics (default 7400)
#   --join A,B        internal addresses of members, HOST:PORT; left out on the first node only
#   --pki FOLDER      copies ca.crt, NAME.crt, NAME.key, and keys.toml where it is there, to /etc/quorate
#   --root FOLDER     install below this folder, as for an image; makes no user and calls no systemctl
#   --dry-run         say what would be done, change nothing
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
role='' name='' address=127.0.0.1 port=7400 join='' pki='' root='' dry='' uninstall=''

fail() {
    echo "install.sh: $1; $2" >&2
    exit "${3:-1}"
}

while (($#)); do
    case $1 in
    --role | --name | --address | --port | --join | --pki | --root)
        [[ -n ${2:-} ]] || fail "$1 has no value" "see the top of this script" 2
        declare "${1#--}=$2"
        shift 2
        ;;
    --dry-run) dry=1 && shift ;;
    --uninstall) uninstall=1 && shift ;;
    -h | --help) sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
    *) fail "$1 is not known" "--help lists what is" 2 ;;
    esac
done

# In a checkout the parts lie as in the repository; in the archive beside this script.
binary=${QUORATE:-$here/quorate}
[[ -f $binary ]] || binary=$here/../target/release/quorate
# In the Debian package the program is in its place already.
[[ -f $binary ]] || binary=/usr/bin/quorate
etc=$root/etc/quorate data=$root/var/lib/quorate units=$root/usr/lib/systemd/system
programs=("$root/usr/bin/quorate" "$root/usr/lib/quorate/quorate-run")
unit_names=(quorate-coordinator quorate-worker quorate-worker-tools)

# Says what is done, and does it unless this is a rehearsal.
act() {
    echo "  $*"
    [[ -n $dry ]] || "$@"
}

# Copies a file that is absent or differs: put MODE FROM TO
put() {
    if cmp -s "$2" "$3" && [[ $(stat -c %a "$3") == "$1" ]]; then return; fi
    # Replaced by a rename, because a program that runs cannot be written over.
    act install -D -m "$1" "$2" "$3.new"
    act mv -f "$3.new" "$3"
}

folder() { # MODE FOLDER
    [[ -d $2 && $(stat -c %a "$2") == "$1" ]] || act install -d -m "$1" "$2"
}

# What belongs to the node's user; below --root there is none.
own() {
    [[ -n $root ]] || act chown "$@"
}

user() {
    [[ -z $root ]] || return 0
    [[ $EUID == 0 || -n $dry ]] || fail "this needs root" "repeat it with sudo, or give --root FOLDER"
    getent passwd quorate >/dev/null ||
        act useradd --system --user-group --home-dir /var/lib/quorate --no-create-home --shell /usr/sbin/nologin quorate
}

files() {
    [[ -x $binary ]] || fail "there is no program at $binary" "run \`make dist\`, or set QUORATE"
    put 755 "$binary" "${programs[0]}"
    put 755 "$here/systemd/quorate-run" "${programs[1]}"
    local unit page
    for unit in "${unit_names[@]}"; do put 644 "$here/systemd/$unit.service" "$units/$unit.service"; done
    for page in "$here"/share/{man/man1/*,bash-completion/completions/*,zsh/site-functions/*,fish/vendor_completions.d/*}; do
        [[ ! -f $page ]] || put 644 "$page" "$root/usr/share/${page#"$here"/share/}"
    done
    put 644 "$here/RUNBOOK.md" "$root/usr/share/doc/quorate/RUNBOOK.md"
    folder 750 "$etc"
    folder 700 "$data"
    own root:quorate "$etc"
    own quorate:quorate "$data"
}

secrets() {
    local file
    [[ -n $pki ]] || return 0
    for file in ca.crt "$name.crt" "$name.key"; do
        [[ -f $pki/$file ]] || fail "$pki/$file is not there" "make it with \`quorate cert node --dir $pki --name $name\`"
    done
    put 640 "$pki/ca.crt" "$etc/ca.crt"
    put 640 "$pki/$name.crt" "$etc/node-$kind.crt"
    # The node says so in its log where anyone but its own user may read the key.
    put 600 "$pki/$name.key" "$etc/node-$kind.key"
    own root:quorate "$etc/ca.crt" "$etc/node-$kind.crt"
    own quorate:quorate "$etc/node-$kind.key"
    [[ ! -f $pki/keys.toml ]] || { put 640 "$pki/keys.toml" "$etc/keys.toml" && own root:quorate "$etc/keys.toml"; }
}

# The commented template with this node's values in their places.
rendered() {
    local members='' member tls='' keys='' http=127.0.0.1
    for member in ${join//,/ }; do members+="${members:+, }\"$member\""; done
    [[ -z $pki ]] || tls="s|^# \[tls\]|[tls]|; s|^# ca = .*|ca = \"ca.crt\"|; s|^# cert = .*|cert = \"node-$kind.crt\"|; s|^# key = .*|key = \"node-$kind.key\"|;"
    [[ ! -f $pki/keys.toml ]] || keys='s|^# keys = .*|keys = "keys.toml"|;'
    # TOML tables have no order, but [tls] must not swallow [listen]'s keys: the template has it before [listen].
    sed -e "s|^name = .*|name = \"$name\"|; s|^data_dir = .*|data_dir = \"/var/lib/quorate/$name\"|" \
        -e "s|^# models_dir = .*|models_dir = \"/var/lib/quorate/models\"|; s|^join = .*|join = [$members]|" \
        -e "s|^clients = .*|clients = \"$address:$port\"|; s|^internal = .*|internal = \"$address:$((port + 1))\"|" \
        -e "s|^http = .*|http = \"$http:$((port + 80))\"|; $tls $keys" "$here/config/$kind.toml"
}

configuration() {
    local file=$etc/$kind.toml new
    if [[ -f $file ]]; then
        echo "  $file is there and stays as it is"
        return
    fi
    [[ $name =~ ^[A-Za-z0-9_.-]+$ ]] || fail "--name '$name' is no name" "use letters, digits, - _ ." 2
    echo "  writes $file for $name at $address:$port"
    [[ -z $dry ]] || return 0
    new=$(mktemp "$etc/.new.XXXXXX")
    rendered >"$new"
    check "$new" || { rm -f "$new" && fail "the configuration would be refused" "see above"; }
    chmod 640 "$new"
    own root:quorate "$new"
    mv "$new" "$file"
}

# The program itself judges what was written.
check() {
    if ! "$binary" config check --help >/dev/null 2>&1; then
        echo "  this program has no \`config check\`: the configuration is judged at the first start" >&2
        return 0
    fi
    "$binary" config check "$1"
}

remove() {
    local unit file
    for unit in quorate-worker-tools quorate-worker quorate-coordinator; do
        [[ -n $root || ! -f $units/$unit.service ]] || act systemctl disable --now "$unit"
    done
    for unit in "${unit_names[@]}"; do [[ ! -e $units/$unit.service ]] || act rm -f "$units/$unit.service"; done
    for file in "${programs[@]}" "$root"/usr/share/man/man1/quorate{,-*}.1 \
        "$root/usr/share/bash-completion/completions/quorate" "$root/usr/share/zsh/site-functions/_quorate" "$root/usr/share/fish/vendor_completions.d/quorate.fish" \
        "$root/usr/share/doc/quorate/RUNBOOK.md"; do
        [[ ! -e $file ]] || act rm -f "$file"
    done
    for file in "$root/usr/lib/quorate" "$root/usr/share/doc/quorate"; do [[ ! -d $file ]] || act rmdir "$file"; done
    [[ -n $root ]] || act systemctl daemon-reload
    echo "quorate is removed; /etc/quorate and /var/lib/quorate are kept"
}

if [[ -n $uninstall ]]; then
    remove
    exit
fi
case $role in
'' | coordinator | worker) kind=$role ;;
worker-tools) kind=worker ;;
*) fail "--role $role is not known" "coordinator, worker and worker-tools are" 2 ;;
esac
user
files
if [[ -n $role ]]; then
    secrets
    configuration
fi
[[ -n $root ]] || act systemctl daemon-reload
echo "quorate is installed${role:+; next: systemctl enable --now quorate-$role}"

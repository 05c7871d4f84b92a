#!/usr/bin/env bash
# Packs one archive and one Debian package from a program that is built: dist.sh [FOLDER, default dist]
#
#   QUORATE            the program (default target/release/quorate)
#   SOURCE_DATE_EPOCH  the time of every file in them (default: the last commit's)
#
# The same program gives the same bytes: names are sorted, times fixed, owners root.
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(mkdir -p "${1:-$here/../dist}" && cd "${1:-$here/../dist}" && pwd)
program=${QUORATE:-$here/../target/release/quorate}
[[ -x $program ]] || {
    echo "dist.sh: there is no program at $program; run \`cargo build --release -p quorate\`, or set QUORATE" >&2
    exit 1
}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
version=$("$program" --version | cut -d' ' -f2)
machine=$(uname -m)
case $machine in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; *) architecture=$machine ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What both hold, as install.sh wants it beside itself.
tree=$work/quorate-$version-$machine-linux
mkdir -p "$tree"
# Names of functions stay out; what is no ELF file, as in the tests of this script, is taken as it is.
strip -o "$tree/quorate" "$program" 2>/dev/null || cp "$program" "$tree/quorate"
chmod 755 "$tree/quorate"
cp -r "$here/systemd" "$here/config" "$here/install.sh" "$here/RUNBOOK.md" "$here/../LICENSE" "$tree/"
# Dashboards and alerts, with the page that the alerts' entries lead to.
mkdir "$tree/monitoring"
cp "$here"/grafana/*.json "$here/alerts.yml" "$here/../docs/alerts.md" "$tree/monitoring/"
# Written by the program itself; one from before these verbs has none to give.
if "$program" completions --help >/dev/null 2>&1; then
    share=$tree/share
    mkdir -p "$share"/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    "$program" completions bash >"$share/bash-completion/completions/quorate"
    "$program" completions zsh >"$share/zsh/site-functions/_quorate"
    "$program" completions fish >"$share/fish/vendor_completions.d/quorate.fish"
    "$program" man --dir "$share/man/man1"
else
    echo "dist.sh: this program writes no completions and no man pages; the archive is without them" >&2
fi
(cd "$tree" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >"$work/sums" && mv "$work/sums" SHA256SUMS)
chmod -R u=rwX,go=rX "$tree"
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
    -C "$work" -c "${tree##*/}" | gzip -n -6 >"$out/${tree##*/}.tar.gz"

# The package installs what install.sh installs, and keeps the script for configuring a node.
package=$work/package
QUORATE=$tree/quorate bash "$tree/install.sh" --root "$package" >/dev/null
rm -rf "$package/etc" "$package/var"
mkdir -p "$package/usr/share/quorate" "$package/DEBIAN"
cp -r "$tree/systemd" "$tree/config" "$tree/monitoring" "$tree/install.sh" "$package/usr/share/quorate/"
install -m 644 "$tree/RUNBOOK.md" "$package/usr/share/quorate/RUNBOOK.md"
install -m 644 "$here/../LICENSE" "$package/usr/share/doc/quorate/copyright"
size_kib=$(du -sk --apparent-size "$package/usr" | cut -f1)
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$size_kib/" "$here/debian/control" >"$package/DEBIAN/control"
install -m 755 "$here"/debian/{postinst,prerm,postrm} "$package/DEBIAN/"
(cd "$package" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
chmod -R u=rwX,go=rX "$package"
find "$package" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zgzip -z6 --build "$package" "$out/quorate_${version}_$architecture.deb" >/dev/null

(cd "$out" && sha256sum "${tree##*/}.tar.gz" "quorate_${version}_$architecture.deb" >SHA256SUMS && cat SHA256SUMS)

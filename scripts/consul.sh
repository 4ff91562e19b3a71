#!/bin/sh
# Prints the path of a Consul server for the tests; fetches one when there is none.
#
# In this order: $CONSUL_FOR_TESTS, a `consul` on the PATH, one fetched before, Debian bullseye's package (1.8.7), fetched
# through apt into target/tools/ without root. The system's own apt state is not touched: lists, cache and the list of
# sources are folders of ours; the mirror is the one that this machine's own sources name, and the release's signature is
# checked with the system's keyring.
set -eu

say() { echo "consul.sh: $*" >&2; }
die() {
    say "$*"
    say "Install Consul, or set CONSUL_FOR_TESTS to a consul binary, and run the tests again."
    exit 1
}

if [ -n "${CONSUL_FOR_TESTS:-}" ]; then
    [ -x "$CONSUL_FOR_TESTS" ] || die "CONSUL_FOR_TESTS=$CONSUL_FOR_TESTS cannot be executed."
    echo "$CONSUL_FOR_TESTS"
    exit 0
fi
if command -v consul >/dev/null 2>&1; then
    command -v consul
    exit 0
fi

root=$(cd "$(dirname "$0")/.." && pwd)
tools="${CARGO_TARGET_DIR:-$root/target}/tools"
binary="$tools/consul/usr/bin/consul"
if [ -x "$binary" ]; then
    echo "$binary"
    exit 0
fi

for tool in apt-get dpkg-deb dpkg; do
    command -v "$tool" >/dev/null 2>&1 || die "there is no $tool here, so Debian's package cannot be fetched."
done
mkdir -p "$tools"
# Several test runs at once: one fetches, the others wait for it.
exec 9>"$tools/consul.lock"
if command -v flock >/dev/null 2>&1; then
    flock -w 600 9 || die "another run has been fetching Consul for ten minutes; remove $tools/consul.lock if it is gone."
fi
if [ -x "$binary" ]; then
    echo "$binary"
    exit 0
fi

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || die "there is no $keyring (package debian-archive-keyring) to check signatures with."

# The mirrors that this machine uses for Debian itself, from both forms of source files.
mirrors() {
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -r "$file" ] || continue
        sed -n 's/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([a-z]*:[^[:space:]]*\)[[:space:]].*/\2/p' "$file"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -r "$file" ] || continue
        sed -n 's/^URIs:[[:space:]]*//p' "$file" | tr ' ' '\n'
    done
}
mirror=$(mirrors | sed 's:/*$::' | grep '/debian$' | head -n 1) || true
[ -n "$mirror" ] || die "none of this machine's apt sources is a Debian mirror."

work="$tools/apt"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/parts"
: >"$work/status"
echo "deb [signed-by=$keyring] $mirror bullseye main" >"$work/sources.list"

apt() {
    apt-get -q -q \
        -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts="$work/parts" \
        -o Dir::State="$work" -o Dir::State::Lists="$work/lists" -o Dir::State::Status="$work/status" \
        -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o Acquire::http::Timeout=60 -o Debug::NoLocking=true "$@"
}

say "fetching Consul from Debian bullseye into $tools (once)"
log="$work/log"
apt update >"$log" 2>&1 || { cat "$log" >&2; die "the package lists of Debian bullseye cannot be fetched."; }
(cd "$work" && rm -f ./*.deb && apt download consul >>"$log" 2>&1) || { cat "$log" >&2; die "the package cannot be fetched."; }
package=$(ls "$work"/consul_*.deb 2>/dev/null | head -n 1)
[ -n "$package" ] || { cat "$log" >&2; die "apt reported success but left no package."; }

rm -rf "$tools/consul.new"
dpkg-deb -x "$package" "$tools/consul.new" || die "$package cannot be unpacked."
"$tools/consul.new/usr/bin/consul" version >&2 || die "the fetched binary does not run on this machine."
rm -rf "$tools/consul"
mv "$tools/consul.new" "$tools/consul"
rm -f "$package"
echo "$binary"

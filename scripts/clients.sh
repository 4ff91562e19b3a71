#!/bin/sh
# Prints a folder with the programs that tests/real_clients runs beside this project's own: curl, openssl, nginx, h2load.
#
# $CLIENTS_FOR_TESTS if it is set; else target/tools/clients/bin: links to what is on the PATH, and for what is not, the
# packages of this machine's Debian (or a relative of it), fetched through apt and unpacked there without root.
set -eu

say() { echo "clients.sh: $*" >&2; }
die() {
    say "$*"
    say "Install curl, openssl, nginx and nghttp2-client, or set CLIENTS_FOR_TESTS to a folder with the programs."
    exit 1
}

if [ -n "${CLIENTS_FOR_TESTS:-}" ]; then
    for program in curl openssl nginx h2load; do
        [ -x "$CLIENTS_FOR_TESTS/$program" ] || die "there is no $program in CLIENTS_FOR_TESTS=$CLIENTS_FOR_TESTS."
    done
    echo "$CLIENTS_FOR_TESTS"
    exit 0
fi

root=$(cd "$(dirname "$0")/.." && pwd)
tools="${CARGO_TARGET_DIR:-$root/target}/tools"
home="$tools/clients"
mkdir -p "$home/bin"
# Several test runs at once: one fetches, the others wait for it.
exec 9>"$tools/clients.lock"
if command -v flock >/dev/null 2>&1; then
    flock -w 600 9 || die "another run has been fetching for ten minutes; remove $tools/clients.lock if it is gone."
fi

missing=
for program in curl openssl nginx h2load; do
    [ -x "$home/bin/$program" ] && continue
    found=$(PATH="$PATH:/usr/sbin:/sbin" command -v "$program" || true)
    if [ -n "$found" ]; then
        ln -sf "$found" "$home/bin/$program"
    else
        missing="$missing $program"
    fi
done
if [ -z "$missing" ]; then
    echo "$home/bin"
    exit 0
fi

for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null 2>&1 || die "$missing: not here, and without $tool they cannot be fetched."
done
packages=
for program in $missing; do
    case $program in
    h2load) packages="$packages nghttp2-client" ;;
    *) packages="$packages $program" ;;
    esac
done

# apt's state of this machine is read and not changed: lists, cache and locks are ours.
work="$tools/clients-apt"
log="$work/log"
rm -rf "$work/archives"
mkdir -p "$work/lists/partial" "$work/archives/partial"
apt() {
    apt-get -q -q -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::Archives="$work/archives" \
        -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=true -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o Acquire::http::Timeout=60 "$@"
}
say "fetching$packages into $home (once)"
apt update >"$log" 2>&1 || { cat "$log" >&2; die "the package lists cannot be fetched."; }
# With what they depend on and what is not installed yet; `--reinstall` fetches a package whose program was removed.
# shellcheck disable=SC2086
apt install --download-only --no-install-recommends --reinstall --yes $packages >>"$log" 2>&1 || {
    cat "$log" >&2
    die "the packages cannot be fetched."
}
for package in "$work"/archives/*.deb; do
    [ -e "$package" ] || { cat "$log" >&2; die "apt reported success but left no package."; }
    dpkg-deb -x "$package" "$home/root" || die "$package cannot be unpacked."
done
rm -rf "$work/archives"
libraries=$(find "$home/root" -name '*.so*' -exec dirname {} \; | sort -u | paste -sd: -)
for program in $missing; do
    binary=$(find "$home/root/usr/bin" "$home/root/usr/sbin" -name "$program" 2>/dev/null | head -n 1)
    [ -n "$binary" ] || die "the packages have no $program."
    # `exec`, so that the process that is started is the program itself.
    {
        echo '#!/bin/sh'
        echo "LD_LIBRARY_PATH='$libraries' exec '$binary' \"\$@\""
    } >"$home/bin/$program"
    chmod +x "$home/bin/$program"
done
echo "$home/bin"

#!/bin/sh
# Prints the path of a Python that has what tests/python/requirements.txt names; makes one when there is none.
#
# In this order: $PYTHON_FOR_TESTS; a virtual environment made before; a new one in target/tools/python/, without root,
# with `venv` of this machine's python3, and its pip or, where it has none, Debian's, fetched through apt. The system's own
# packages are not touched.
set -eu

say() { echo "python.sh: $*" >&2; }
die() {
    say "$*"
    say "Or set PYTHON_FOR_TESTS to a Python that has them, and run the tests again."
    exit 1
}

if [ -n "${PYTHON_FOR_TESTS:-}" ]; then
    [ -x "$PYTHON_FOR_TESTS" ] || die "PYTHON_FOR_TESTS=$PYTHON_FOR_TESTS cannot be executed."
    echo "$PYTHON_FOR_TESTS"
    exit 0
fi

root=$(cd "$(dirname "$0")/.." && pwd)
wanted="$root/tests/python/requirements.txt"
tools="${CARGO_TARGET_DIR:-$root/target}/tools"
home="$tools/python"
python="$home/bin/python"
# Written last, so that an environment that was not finished is made anew; and when the requirements change.
finished() { [ -x "$python" ] && cmp -s "$wanted" "$home/installed.txt"; }

if finished; then
    echo "$python"
    exit 0
fi

command -v python3 >/dev/null 2>&1 || die "there is no python3 here: apt-get install python3 python3-venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || die "python3 is older than 3.9."

mkdir -p "$tools"
# Several test runs at once: one installs, the others wait for it.
exec 9>"$tools/python.lock"
if command -v flock >/dev/null 2>&1; then
    flock -w 600 9 || die "another run has been installing for ten minutes; remove $tools/python.lock if it is gone."
fi
if finished; then
    echo "$python"
    exit 0
fi

log="$tools/python.log"
rm -rf "$home"

# Debian's python3 comes without pip, and without ensurepip until python3-venv is installed. Prints the path of pip's
# wheel, from the package that python3-venv would install, fetched through apt into $tools without root.
fetched_pip() {
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || return 1
    say "fetching pip into $tools (once)"
    work="$tools/python-apt"
    rm -rf "$work"
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    # apt's state of this machine is read and not changed: lists, cache and locks are ours.
    apt() {
        apt-get -q -q -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::Archives="$work/archives" \
            -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=true -o Acquire::Languages=none -o Acquire::Retries=3 \
            -o Acquire::http::Timeout=60 "$@" >>"$log" 2>&1
    }
    apt update && (cd "$work" && apt download python3-pip-whl) || { cat "$log" >&2; return 1; }
    dpkg-deb -x "$work"/python3-pip-whl_*.deb "$work/root" || return 1
    find "$work/root" -name 'pip-*.whl' | head -n 1 | grep .
}

if python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
    python3 -m venv "$home" >"$log" 2>&1 || { cat "$log" >&2; die "a virtual environment cannot be made."; }
    pip() { "$python" -m pip "$@"; }
elif python3 -c 'import venv' >/dev/null 2>&1 && python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv --without-pip "$home" >"$log" 2>&1 || { cat "$log" >&2; die "a virtual environment cannot be made."; }
    pip() { python3 -m pip --python "$python" "$@"; }
elif python3 -c 'import venv' >/dev/null 2>&1 && wheel=$(fetched_pip); then
    python3 -m venv --without-pip "$home" >"$log" 2>&1 || { cat "$log" >&2; die "a virtual environment cannot be made."; }
    pip() { PYTHONPATH=$wheel "$python" -m pip "$@"; }
else
    die "this python3 has neither ensurepip nor pip: apt-get install python3-venv"
fi

say "installing $(grep -c == "$wanted") packages into $home (once)"
pip --disable-pip-version-check install --quiet --only-binary :all: --no-deps --requirement "$wanted" >>"$log" 2>&1 || {
    cat "$log" >&2
    die "the packages of $wanted cannot be installed (the messages are above)."
}
"$python" -c 'import grpc_health.v1.health, h2, sonora.client, websockets, wsproto' || die "what was installed cannot be imported."
cp "$wanted" "$home/installed.txt"
echo "$python"

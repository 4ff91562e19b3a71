#!/usr/bin/env bash
# `make test`: every check in turn, cheapest first, each with its time. Goes on after a failure, so that one run
# shows everything that is wrong; the last line is how many tests ran. Needs Rust (with rustfmt and clippy), cc,
# make, git and python3; the scripts beside it fetch what else the tests talk to.
set -uo pipefail
cd "$(dirname "$0")/.."

CARGO=${CARGO:-cargo}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()
times=()

step() { # step NAME COMMAND…
    local name=$1 began=$SECONDS code=0
    shift
    printf '\n== %s\n' "$name"
    "$@" || code=$?
    times+=("$(printf '%5d s  %s' $((SECONDS - began)) "$name")")
    [ $code -eq 0 ] || failed+=("$name")
    return $code
}

# The tests against a real Consul get its path in CONSUL_FOR_TESTS; scripts/consul.sh prints it, fetching it if need be.
consul() {
    CONSUL_FOR_TESTS=${CONSUL_FOR_TESTS:-$(scripts/consul.sh | tail -n 1)} || return
    [ -x "$CONSUL_FOR_TESTS" ] || { echo "scripts/consul.sh gave no program: '$CONSUL_FOR_TESTS'" >&2; return 1; }
    export CONSUL_FOR_TESTS
    echo "CONSUL_FOR_TESTS=$CONSUL_FOR_TESTS"
}

# The tests against other people's Python packages get an interpreter that has them in PYTHON_FOR_TESTS.
python() {
    PYTHON_FOR_TESTS=${PYTHON_FOR_TESTS:-$(scripts/python.sh | tail -n 1)} || return
    [ -x "$PYTHON_FOR_TESTS" ] || { echo "scripts/python.sh gave no program: '$PYTHON_FOR_TESTS'" >&2; return 1; }
    export PYTHON_FOR_TESTS
    echo "PYTHON_FOR_TESTS=$PYTHON_FOR_TESTS"
}

# The tests against other people's clients and servers get a folder with them in CLIENTS_FOR_TESTS.
clients() {
    CLIENTS_FOR_TESTS=${CLIENTS_FOR_TESTS:-$(scripts/clients.sh | tail -n 1)} || return
    [ -x "$CLIENTS_FOR_TESTS/h2load" ] || { echo "scripts/clients.sh gave no programs: '$CLIENTS_FOR_TESTS'" >&2; return 1; }
    export CLIENTS_FOR_TESTS
    echo "CLIENTS_FOR_TESTS=$CLIENTS_FOR_TESTS"
}

tests() {
    "$CARGO" test --locked --no-fail-fast 2>&1 | tee "$log"
}

documentation() {
    RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" "$CARGO" doc --locked --no-deps --document-private-items --quiet
}

# Each benchmark's body once, in the test profile: that it works, not how fast it is.
benches() {
    local names=() file
    for file in benches/*.rs; do
        [ -e "$file" ] && names+=(--bench "$(basename "$file" .rs)")
    done
    [ ${#names[@]} -eq 0 ] || "$CARGO" test --locked --quiet "${names[@]}"
}

for part in fmt clippy; do
    "$CARGO" "$part" --version >/dev/null 2>&1 || {
        echo "cargo $part is missing: rustup component add rustfmt clippy" >&2
        exit 1
    }
done

step "dependencies" "$CARGO" fetch --locked || exit 1
step "consul" consul
step "python" python
step "clients" clients
step "format" "$CARGO" fmt --check
step "clippy" "$CARGO" clippy --locked --all-targets --quiet -- -D warnings
step "tests" tests
step "documentation" documentation
step "benches" benches

printf '\n'
printf '%s\n' "${times[@]}"
[ ${#failed[@]} -eq 0 ] || printf 'failed: %s\n' "${failed[@]}"
awk '/^test result:/ {
        for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) }
     }
     END { printf "%d passed, %d failed\n", p, f; exit p == 0 }' "$log" || failed+=("no test ran")
[ ${#failed[@]} -eq 0 ]

#!/bin/sh
# Builds pointsman as it is released: optimised with a profile of real work. A request's processor time is about a seventh
# less than with `cargo build --release` (docs/PERFORMANCE.md). Prints where the program is.
#
# Three steps: a build that counts (target/pgo/counting), the comparison's work done with it (benches/compare/train.py
# fetches what that needs, without root), and the build that reads what was counted. Takes two builds, and a minute.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
pgo="${CARGO_TARGET_DIR:-$root/target}/pgo"
# With the target named, build scripts and macros are not counted.
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$pgo"
rm -rf "$pgo/raw" "$pgo/work.profdata"

# What is counted is the program before it is optimised, so this build may save the time for it.
RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate=$pgo/raw" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo build --locked --release --bin pointsman --target "$host" --target-dir "$pgo/counting"
python3 benches/compare/train.py "$pgo/counting/$host/release/pointsman" "$pgo/raw" "$pgo/work.profdata"
RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-use=$pgo/work.profdata" \
    cargo build --locked --release --bin pointsman --target "$host" --target-dir "$pgo/release"
cp -f "$pgo/release/$host/release/pointsman" "$pgo/pointsman"
echo "$pgo/pointsman"

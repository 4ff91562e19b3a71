"""Has a pointsman that counts what it executes do the comparison's work, and merges the counts into one profile.

    train.py PROGRAM RAW OUT

PROGRAM was built with -Cprofile-generate=RAW; OUT is for -Cprofile-use. scripts/release.sh calls it.
"""

import pathlib
import shutil
import subprocess
import sys

import tools

# What a proxy is used for, none of it for long: how often, and not how fast, is what the optimiser is told.
WORK = "small,rules,64k,1m,upload,close,tls,handshake,h2,h2-upload,grpc,websocket"
# LLVM's that reads the counts of the compilers of today; an older one refuses them.
PROFDATA = "llvm-profdata-19"


def main():
    program, raw, out = sys.argv[1:]
    compare = pathlib.Path(__file__).with_name("compare.py")
    subprocess.run([sys.executable, str(compare), "--peers", "pointsman", "--pointsman", program, "--only", WORK,
                    "--rounds", "1", "--seconds", "2", "--no-rate"], check=True, stdout=subprocess.DEVNULL, timeout=900)
    counts = sorted(pathlib.Path(raw).glob("*.profraw"))
    if not counts:
        sys.exit(f"train: {program} wrote nothing into {raw}: was it built with -Cprofile-generate, and did it end by itself?")
    subprocess.run([profdata(), "merge", "-o", out, *map(str, counts)], check=True, env=tools.environment(), timeout=300)


def profdata():
    """The compiler's own tool where rustup has it (component llvm-tools), else Debian's."""
    libraries = subprocess.run(["rustc", "--print", "target-libdir"], capture_output=True, text=True, check=True, timeout=60)
    own = pathlib.Path(libraries.stdout.strip()).parent / "bin" / "llvm-profdata"
    return str(own) if own.exists() else shutil.which(PROFDATA) or tools.find(PROFDATA)


if __name__ == "__main__":
    try:
        main()
    except (tools.Missing, subprocess.SubprocessError) as problem:
        sys.exit(f"train: {problem}")

#!/usr/bin/env python3
"""pointsman beside nginx, HAProxy and Envoy: the same work for all, one core for the proxy, one for load and instances.

    make compare                                  everything, three rounds of five seconds
    make compare COMPARE="--only small,rules"     some of the work
    compare.py --peers nginx,haproxy --seconds 2  some of the peers
    compare.py --only idle,idle-tls --peers pointsman --pointsman target/debug/pointsman
    compare.py --check                            only that every peer does the work, nothing is measured
    compare.py --out results.json --out table.md  keep the results; --render results.json prints them again

Needs Python 3 and Linux; the programs are found or fetched by tools.py. Loopback only, ports chosen free, bounded in
time; everything started is ended at exit.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import shlex
import shutil
import signal
import sys
import tempfile

import peers
import report
import tools
from bench import WARM_SECONDS, Bench, say
from work import RATED, WORK

PEERS = list(peers.KNOWN)
QUIET = 0.5                         # load average above which a warning is printed


def parse_arguments():
    cpus = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--only", default=",".join(WORK), help=f"work to do: {','.join(WORK)}")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--no-rate", action="store_true", help="leave out the runs at a fixed rate")
    parser.add_argument("--idle", type=int, default=10_000, help="connections of the idle works")
    parser.add_argument("--pointsman", help="another binary than target/release/pointsman")
    parser.add_argument("--check", action="store_true", help="whether every peer does the work, and no more")
    parser.add_argument("--proxy-cpu", type=int, default=cpus[0])
    parser.add_argument("--load-cpu", type=int, default=cpus[-1])
    parser.add_argument("--out", action="append", default=[], help="write results.json or table.md; may be repeated")
    parser.add_argument("--render", help="print the table of earlier results (JSON) and measure nothing")
    options = parser.parse_args()
    options.only, options.peers = options.only.split(","), options.peers.split(",")
    for given, known in ((options.only, WORK), (options.peers, PEERS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    if options.rounds < 1 or options.seconds < 1 or options.idle < 100:
        parser.error("--rounds and --seconds are at least 1, --idle 100")
    return options


def find_programs(options):
    """What is needed must be there; a peer that cannot be had is left out, and the report says so."""
    programs, missing = {}, []
    needed = ["nginx", "haproxy", "wrk", "h2load", "nghttp", "openssl"]
    for name in needed + [name for name in options.peers if name not in needed]:
        try:
            programs[name] = os.path.abspath(options.pointsman) if name == "pointsman" and options.pointsman else tools.find(name)
        except tools.Missing as problem:
            if name in needed:
                sys.exit(f"{problem}")
            missing.append(str(problem).splitlines()[0])
            say(str(problem))
    options.peers = [name for name in options.peers if name in programs]
    if not options.peers:
        sys.exit("no peer to measure")
    return programs, missing


def measure(options, programs, missing, folder):
    bench = Bench(options, programs, folder)
    rated = 0 if options.no_rate else len([key for key in RATED if key in options.only])
    runs = (len(options.only) + rated) * options.rounds * len(options.peers)
    if os.getloadavg()[0] > QUIET and not options.check:
        say(f"the machine is not quiet (load {os.getloadavg()[0]:.1f}): the figures will say less")
    versions = {name: tools.version(name, path) for name, path in programs.items()}
    results = {
        "command": shlex.join(["benches/compare/compare.py"] + sys.argv[1:]), "versions": versions, "missing": missing,
        "date": datetime.date.today().isoformat(), "machine": machine(), "load": os.getloadavg()[0], "rounds": options.rounds,
        "seconds": options.seconds, "work": [],
    }
    try:
        bench.start_instances()
        if options.check:
            for key in options.only:
                bench.verified(key, options.peers)
            return results
        say(f"about {runs * (options.seconds + WARM_SECONDS + 1) // 60 + 1} minutes, idle connections more")
        results["work"] = list(bench.all())
    finally:
        bench.processes.stop_all()
    return results


def machine():
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} × {model}, Linux {platform.release().split('-')[0]}"


def main():
    options = parse_arguments()
    if options.render:
        print(report.markdown(json.loads(pathlib.Path(options.render).read_text())), end="")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    programs, missing = find_programs(options)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pointsman-compare-", dir=memory))
    # nginx's worker may drop its rights and still has to read the files.
    folder.chmod(0o755)
    try:
        results = measure(options, programs, missing, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.check:
        return
    for path in map(pathlib.Path, options.out):
        text = json.dumps(results, indent=1, ensure_ascii=False) + "\n" if path.suffix == ".json" else report.markdown(results)
        path.write_text(text)
    print(report.markdown(results), end="")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, KeyboardInterrupt) as problem:
        sys.exit(f"compare: {problem}" if str(problem) else 130)

#!/usr/bin/env python3
"""pointsman beside nginx, HAProxy and Envoy: the same work for all, one core for the proxy, one for load and instances.

    make compare                                  everything, three rounds of five seconds
    make compare COMPARE="--only small,rules"     some of the work
    compare.py --peers nginx,haproxy --seconds 2  some of the peers
    compare.py --out results.json --out table.md  keep the results; --render results.json prints them again

Needs Python 3 and Linux; the programs are found or fetched by tools.py. Loopback only, ports chosen free, bounded in
time; everything started is ended at exit.
"""

import argparse
import datetime
import http.client
import ipaddress
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
import time

import load
import peers
import report
import tools

PEERS = ["pointsman", "nginx", "haproxy", "envoy"]
RULE = [(peers.RULE_HEADER, peers.RULE_VALUE)]
WORK = {
    "small": {"title": "Small answers, 64 connections", "connections": 64, "path": "/"},
    "rules": {"title": "50 regular expressions that do not match, then a split", "connections": 64, "path": "/",
              "rules": True, "headers": RULE},
    "64k": {"title": "Answers of 64 KiB", "connections": 64, "path": "/file/64k"},
    "1m": {"title": "Answers of 1 MiB", "connections": 64, "path": "/file/1m"},
    "upload": {"title": "Uploads of 16 KiB", "connections": 64, "path": peers.UPLOAD, "method": "POST", "body": 16384,
               "sink": True},
    "close": {"title": "A connection a request", "connections": 64, "path": "/", "headers": [("Connection", "close")]},
    "1000": {"title": "Small answers, 1,000 connections", "connections": 1000, "path": "/"},
}
RATED = ["small", "rules"]          # measured again at a fixed rate
WARM_SECONDS = 1
READY_SECONDS = 5
QUIET = 0.5                         # load average above which a warning is printed


class Bench:
    """One run: the instances, a folder for everything, and the programs."""

    def __init__(self, options, programs, folder):
        self.options, self.programs, self.folder = options, programs, folder
        self.environment = tools.environment()
        self.processes = load.Processes(self.environment)
        self.script = folder / "report.lua"
        self.script.write_text(load.WRK_SCRIPT)
        files = folder / "files"
        files.mkdir()
        (files / "64k").write_bytes(os.urandom(65536))
        (files / "1m").write_bytes(os.urandom(1048576))

    def start_instances(self):
        """nginx and the sink, each on four ports, on the load's core."""
        self.ports, self.sink_ports = load.free_ports(4), load.free_ports(4)
        pin = ["taskset", "-c", str(self.options.load_cpu)]
        nginx, sink = self.folder / "backend.conf", self.folder / "sink.conf"
        nginx.write_text(peers.backend(self.ports, self.folder))
        sink.write_text(peers.sink(self.sink_ports))
        log = self.folder / "instances.log"
        first = self.processes.start(pin + [self.programs["nginx"], "-p", str(self.folder), "-e", "stderr", "-c", str(nginx)], log)
        second = self.processes.start(pin + [self.programs["haproxy"], "-db", "-f", str(sink)], log)
        load.wait_for(self.ports[0], first, log)
        load.wait_for(self.sink_ports[0], second, log)

    def with_proxy(self, name, work, measure):
        """A fresh proxy for the work, checked and warmed, then `measure(proxy, port)`."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        port, admin = load.free_ports(2)
        ports = self.sink_ports if work.get("sink") else self.ports
        command = peers.command(name, self.programs[name], self.options.proxy_cpu, port, admin, ports,
                                work.get("rules", False), folder)
        log = folder / "log"
        proxy = self.processes.start(command, log)
        try:
            load.wait_for(port, proxy, log)
            self.check(name, port, work)
            self.wrk(work, port, proxy, WARM_SECONDS)
            return measure(proxy, port)
        finally:
            self.processes.stop(proxy)

    def check(self, name, port, work):
        """That the peer does the work: a good answer, and the headers that everybody adds."""
        headers = dict(work.get("headers", []))
        end = time.monotonic() + READY_SECONDS
        while True:
            status, _ = request(port, work.get("method", "GET"), work["path"], headers, b"u" * work.get("body", 0))
            if status == 200:
                break
            # A proxy may listen a moment before it has read its catalog.
            if status != 503 or time.monotonic() > end:
                raise RuntimeError(f"{name} answered {status} to {work['path']}")
            time.sleep(0.05)
        if work.get("sink"):
            return
        _, echo = request(port, "GET", "/echo", headers, b"")
        client, proto, host, ident, connection = echo.decode().split("|")
        # Not always 127.0.0.1: Envoy writes the machine's own address for a client on loopback.
        good = is_address(client) and (proto, host) == ("http", f"127.0.0.1:{port}")
        if not good or len(ident) < 16 or "close" in connection:
            raise RuntimeError(f"{name} does not do the same work as the others; an instance saw {echo.decode()}")

    def wrk(self, work, port, proxy, seconds):
        return load.wrk(self.programs["wrk"], self.environment, self.options.load_cpu, self.script,
                        f"http://127.0.0.1:{port}{work['path']}", work["connections"], seconds, proxy,
                        work.get("method", "GET"), work.get("body", 0), work.get("headers", []))

    def rounds(self, label, names, work, measure):
        """Each peer in turn, as often as there are rounds; the median of each."""
        found = {name: [] for name in names}
        for number in range(self.options.rounds):
            # Every round starts with another peer, so that nobody is always first.
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                result = self.with_proxy(name, work, measure)
                found[name].append(result)
                say(f"{label} {number + 1}/{self.options.rounds} {name}: {result['rps']:,.0f}/s, p99 {result['p99_ms']:.2f} ms, "
                    f"{result['cpu_us']:.1f} µs, busy {result['busy']:.0%}" + (f", {result['errors']:.0f} FAILED" if result["errors"] else ""))
        return {name: load.median(results) for name, results in found.items()}

    def most(self, key, names):
        work = WORK[key]
        measure = lambda proxy, port: self.wrk(work, port, proxy, self.options.seconds)  # noqa: E731
        return {"kind": "most", "key": key, "title": work["title"], "peers": self.rounds(key, names, work, measure)}

    def rated(self, key, names, rate):
        work = WORK[key]

        def measure(proxy, port):
            return load.h2load(self.programs["h2load"], self.environment, self.options.load_cpu, self.folder / "h2load.log",
                               f"http://127.0.0.1:{port}{work['path']}", work["connections"], self.options.seconds, rate,
                               proxy, work.get("headers", []))

        return {"kind": "rate", "key": key, "rate": rate, "title": f"{work['title']}: fixed rate, 60 % of the slowest's maximum",
                "peers": self.rounds(f"{key} at {rate:,.0f}/s", names, work, measure)}


def request(port, method, path, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def is_address(text):
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def say(text):
    print(text, file=sys.stderr, flush=True)


def parse_arguments():
    cpus = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--only", default=",".join(WORK), help=f"work to do: {','.join(WORK)}")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--no-rate", action="store_true", help="leave out the runs at a fixed rate")
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
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    return options


def find_programs(options):
    """What is needed must be there; a peer that cannot be had is left out, and the report says so."""
    programs, missing = {}, []
    for name in ["nginx", "haproxy", "wrk", "h2load"] + [name for name in options.peers if name not in ("nginx", "haproxy")]:
        try:
            programs[name] = tools.find(name)
        except tools.Missing as problem:
            if name not in PEERS or name in ("nginx", "haproxy"):
                sys.exit(f"{problem}")
            missing.append(str(problem).splitlines()[0])
            say(str(problem))
    options.peers = [name for name in options.peers if name in programs]
    if not options.peers:
        sys.exit("no peer to measure")
    return programs, missing


def measure(options, programs, missing, folder):
    bench = Bench(options, programs, folder)
    rated = [] if options.no_rate else [key for key in RATED if key in options.only]
    runs = (len(options.only) + len(rated)) * options.rounds * len(options.peers)
    if os.getloadavg()[0] > QUIET:
        say(f"the machine is not quiet (load {os.getloadavg()[0]:.1f}): the figures will say less")
    say(f"about {runs * (options.seconds + WARM_SECONDS + 1) // 60 + 1} minutes")
    versions = {name: tools.version(name, path) for name, path in programs.items()}
    results = {
        "command": shlex.join(["benches/compare/compare.py"] + sys.argv[1:]), "versions": versions, "missing": missing,
        "date": datetime.date.today().isoformat(), "machine": machine(), "load": os.getloadavg()[0], "rounds": options.rounds,
        "seconds": options.seconds, "work": [],
    }
    try:
        bench.start_instances()
        for key in options.only:
            most = bench.most(key, options.peers)
            results["work"].append(most)
            if key in rated:
                slowest = min(result["rps"] for result in most["peers"].values())
                results["work"].append(bench.rated(key, options.peers, 0.6 * slowest))
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
    for path in map(pathlib.Path, options.out):
        text = json.dumps(results, indent=1, ensure_ascii=False) + "\n" if path.suffix == ".json" else report.markdown(results)
        path.write_text(text)
    print(report.markdown(results), end="")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, KeyboardInterrupt) as problem:
        sys.exit(f"compare: {problem}" if str(problem) else 130)

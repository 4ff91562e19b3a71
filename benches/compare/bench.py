"""One run of the comparison: the instances, a fresh proxy for each measurement, and the rounds."""

import os
import pathlib
import subprocess
import sys
import tempfile

import idle
import load
import peers
import tools
import verify
from peers import instances
from peers.setup import NAME, Setup
from work import RATED, WORK

WARM_SECONDS = 1
# What wrk, h2load and nghttp offer: the same TLS to everybody. OpenSSL reads it for every client that it makes.
OPENSSL = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = default
[default]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""


class Bench:
    """The instances, a folder for everything, and the programs."""

    def __init__(self, options, programs, folder):
        self.options, self.programs, self.folder = options, programs, folder
        self.environment = tools.environment()
        self.load_environment = dict(self.environment, OPENSSL_CONF=str(folder / "openssl.cnf"))
        (folder / "openssl.cnf").write_text(OPENSSL)
        self.processes = load.Processes(self.environment)
        self.script = folder / "report.lua"
        self.script.write_text(load.WRK_SCRIPT)
        files = folder / "files"
        files.mkdir()
        (files / "64k").write_bytes(os.urandom(65536))
        (files / "1m").write_bytes(os.urandom(1048576))
        self.certificate = folder / "certificate"
        self.certificate.mkdir()
        self._certify()

    def _certify(self):
        """A certificate of an ECDSA key (P-256) for the name and for 127.0.0.1, signed by itself."""
        command = [self.programs["openssl"], "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-keyout", "key.pem", "-out", "cert.pem", "-subj", f"/CN={NAME}", "-days", "2",
                   "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
        subprocess.run(command, cwd=self.certificate, check=True, capture_output=True, env=self.environment, timeout=60)
        (self.certificate / "key.pem").chmod(0o644)

    def start_instances(self):
        """Each on four ports, on the load's core."""
        self.ports = {kind: load.free_ports(4) for kind in ("answers", "grpc", "sink", "websocket")}
        pin = ["taskset", "-c", str(self.options.load_cpu)]
        nginx, sink = self.folder / "backend.conf", self.folder / "sink.conf"
        # nginx is given the bytes of a message, so not UTF-8.
        nginx.write_text(instances.answers(self.ports["answers"], self.ports["grpc"], self.folder), encoding="latin-1")
        sink.write_text(instances.sink(self.ports["sink"]))
        log = self.folder / "instances.log"
        echo = [sys.executable, str(load.HERE / "websocket.py"), "echo"] + [str(port) for port in self.ports["websocket"]]
        for kind, command in (("answers", [self.programs["nginx"], "-p", str(self.folder), "-e", "stderr", "-c", str(nginx)]),
                              ("sink", [self.programs["haproxy"], "-db", "-f", str(sink)]), ("websocket", echo)):
            load.wait_for(self.ports[kind][0], self.processes.start(pin + command, log), log)

    def with_proxy(self, name, work, measure):
        """A fresh proxy for the work, checked, then `measure(proxy, port)`."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        folder.chmod(0o755)
        port, admin = load.free_ports(2)
        setup = Setup(folder, port, admin, self.ports[work["instances"]], self.certificate, **work["needs"])
        log = folder / "log"
        proxy = self.processes.start(peers.command(name, self.programs[name], self.options.proxy_cpu, setup), log)
        try:
            load.wait_for(port, proxy, log)
            verify.check(self, name, port, work)
            return measure(proxy, port)
        finally:
            self.processes.stop(proxy)

    def loaded(self, work, proxy, port, seconds, rate=None):
        """The work's own load for so long."""
        url = f"http{'s' if work['needs'].get('tls') else ''}://127.0.0.1:{port}"
        if rate is not None or work["by"] == "h2load":
            return load.h2load(self, work, url, proxy, seconds, rate)
        if work["by"] == "websocket":
            return load.websocket(self, work, port, proxy, seconds)
        return load.wrk(self, work, url, proxy, seconds)

    def rounds(self, label, names, work, measure):
        """Each peer in turn, as often as there are rounds; the median of each."""
        found = {name: [] for name in names}
        for number in range(self.options.rounds):
            # Every round starts with another peer, so that nobody is always first.
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                result = self.with_proxy(name, work, measure)
                found[name].append(result)
                failed = f", {result['errors']:.0f} FAILED" if result["errors"] else ""
                say(f"{label} {number + 1}/{self.options.rounds} {name}: {_line(result)}{failed}")
        return {name: load.median(results) for name, results in found.items()}

    def verified(self, key, names):
        """Only that each peer does the work."""
        for name in names:
            self.with_proxy(name, WORK[key], lambda proxy, port: None)
            say(f"{key} {name}: does the work")

    def most(self, key, names):
        """As much as goes through."""
        work = WORK[key]

        def measure(proxy, port):
            self.loaded(work, proxy, port, WARM_SECONDS)
            return self.loaded(work, proxy, port, self.options.seconds)

        return {"kind": "most", "key": key, "title": work["title"], "unit": work["unit"],
                "peers": self.rounds(key, names, work, measure)}

    def rated(self, key, names, rate):
        """At a rate that all reach."""
        work = WORK[key]

        def measure(proxy, port):
            self.loaded(work, proxy, port, WARM_SECONDS)
            return self.loaded(work, proxy, port, self.options.seconds, rate)

        return {"kind": "rate", "key": key, "rate": rate, "title": f"{work['title']}: fixed rate, 60 % of the slowest's maximum",
                "peers": self.rounds(f"{key} at {rate:,.0f}/s", names, work, measure)}

    def idle(self, key, names):
        """Connections that do nothing."""
        work, count = WORK[key], self.options.idle
        measure = lambda proxy, port: idle.measure(proxy, port, work["kind"], count, self.certificate, instances.ANSWER.encode())  # noqa: E731
        title = work["title"].replace("10,000", f"{count:,}")
        return {"kind": "idle", "key": key, "title": title, "peers": self.rounds(key, names, work, measure)}

    def all(self):
        """Everything that was asked for, in order."""
        for key in self.options.only:
            if WORK[key]["by"] == "idle":
                yield self.idle(key, self.options.peers)
                continue
            most = self.most(key, self.options.peers)
            yield most
            if key in RATED and not self.options.no_rate:
                slowest = min(result["rps"] for result in most["peers"].values())
                yield self.rated(key, self.options.peers, 0.6 * slowest)


def _line(result):
    if "kib" in result:
        return f"{result['kib']:.1f} KiB a connection, {result['idle_ms']:.1f} ms/s idle"
    return (f"{result['rps']:,.0f}/s, p99 {result['p99_ms']:.2f} ms, {result['cpu_us']:.1f} µs, busy {result['busy']:.0%}")


def say(text):
    """To the terminal; results go to the output."""
    print(text, file=sys.stderr, flush=True)

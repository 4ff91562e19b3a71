#!/usr/bin/env python3
"""What slow clients cost: benches/slow/slow.py PROGRAM [--clients 5000] [--seconds 60] [--only "idle,h2, idle"]

For each kind of `clients.kinds()` it starts `PROGRAM run` before two instances (one for the good, one for the slow),
measures good clients alone, then with that many slow ones beside them, and prints a line of a table: the proxy's resident
memory before and at most, its processor time, the good clients' p99 alone and beside the slow, and how many of the good
failed. Another good client asks the good instance without the proxy all the while: what it waits longer is the machine's
doing. All of them stand for other machines: the slow clients and their instance have the last core, and nobody else has it
where there are several; the good and their instance go before the proxy on its core, as far as the system allows. At last it connects 3,000 clients at once. All on loopback; it ends by itself, and ends what it started.
Needs Linux, openssl, and descriptors (`ulimit -Hn`) for three times the clients.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time

import clients
from peers import Good, instance

CORE_TICKS = os.sysconf("SC_CLK_TCK")


class Proxy:
    """The program before the instances, with its defaults but for the addresses. Ended at the end of a `with`."""

    def __init__(self, program, folder, good, slow):
        with open(f"{folder}/catalog.yaml", "w") as file:
            file.write(f"services:\n  web: [{{id: one, address: 127.0.0.1, port: {good}}}]\n"
                       f"  slow: [{{id: two, address: 127.0.0.1, port: {slow}}}]\n")
        for service in ("web", "slow"):
            os.makedirs(f"{folder}/rules", exist_ok=True)
            with open(f"{folder}/rules/{service}.yaml", "w") as file:
                file.write(f"service: {service}\nhosts: [{service}.test]\npools: {{all: id exists}}\nrules: [{{name: all, to: [all]}}]\n")
        with open(f"{folder}/pointsman.yaml", "w") as file:
            file.write(f"listen: [{{address: '127.0.0.1:0'}}, {{address: '127.0.0.1:0', tls: {{cert: {folder}/cert.pem,"
                       f" key: {folder}/key.pem}}}}]\nadmin: {{address: '127.0.0.1:0'}}\n"
                       f"catalog: {{file: {folder}/catalog.yaml}}\nrules: {folder}/rules\n")
        self.log = open(f"{folder}/log", "w+")
        self.process = subprocess.Popen([program, "run", "--config", f"{folder}/pointsman.yaml"],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise SystemExit(self.log.read())
        self.listens = [(host, int(port)) for host, port in
                        (text.rsplit(":", 1) for text in json.loads(line)["listen"])]
        deadline = time.monotonic() + 30
        while Good(self.listens[0], 0.05).heard()[3] and time.monotonic() < deadline:
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(60)
        self.log.close()

    def resident(self):
        """KiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))

    def processor(self):
        """Seconds of processor time so far."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CORE_TICKS


def certificate(folder):
    """What a `Proxy` shows its clients."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem", "-subj", f"/CN={clients.HOST}",
                    "-addext", f"subjectAltName=DNS:{clients.HOST}", "-days", "2"], check=True, capture_output=True)


def share(proxy, began, since):
    return (proxy.processor() - began) / (time.monotonic() - since) * 100


def beside(proxy, direct, seconds):
    """Good clients of the proxy, and of its instance without it: what both `heard`, and the proxy's processor time in per
    cent. Returns a function that waits for that."""
    began, since = proxy.processor(), time.monotonic()
    good, control = Good(proxy.listens[0], seconds), Good(direct, seconds)
    return lambda: (good.heard(), control.heard(), share(proxy, began, since))


def measure(program, folder, kind, wanted, ports):
    """One kind: a line's figures."""
    direct = ("127.0.0.1", ports[0])
    with Proxy(program, folder, *ports) as proxy:
        Good(proxy.listens[0], 0.3).heard()
        quiet, quiet_direct, quiet_share = beside(proxy, direct, wanted.quiet)()
        before = most = proxy.resident()
        crowd = clients.Crowd(kind, wanted.clients, *proxy.listens, f"{folder}/cert.pem", wanted.every, wanted.arriving)
        with clients.Apart(crowd) as apart:
            time.sleep(wanted.arriving + 1)
            heard, until = beside(proxy, direct, wanted.seconds), time.monotonic() + wanted.seconds
            while time.monotonic() < until:
                most = max(most, proxy.resident())
                time.sleep(0.1)
            during, during_direct, during_share = heard()
        there, cut, refused = apart.told
        return {
            "kind": kind.name, "clients": there, "cut": cut, "refused": refused, "mib_before": before / 1024,
            "mib_most": most / 1024, "kib_each": (most - before) / max(there, 1), "processor_quiet": quiet_share,
            "processor_during": during_share, "p99_quiet_ms": quiet[1], "p99_ms": during[1], "ratio": during[1] / quiet[1],
            "direct_ratio": during_direct[1] / quiet_direct[1],
            "good": quiet[2] + during[2], "good_failed": quiet[3] + during[3],
        }


def line(found):
    cells = [f"{found['kind']}", f"{found['clients']:,}", f"{found['cut']:,}", f"{found['mib_before']:.0f}",
             f"{found['mib_most']:.0f}", f"{found['kib_each']:.1f}", f"{found['processor_quiet']:.0f}",
             f"{found['processor_during']:.0f}", f"{found['p99_quiet_ms']:.2f}", f"{found['p99_ms']:.2f}",
             f"{found['ratio']:.2f}", f"{found['direct_ratio']:.2f}", f"{found['good_failed']:,} of {found['good']:,}"]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--clients", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=60, help="how long each kind stays (default 60)")
    parser.add_argument("--quiet", type=float, default=20, help="how long the good are measured alone (default 20)")
    parser.add_argument("--arriving", type=float, default=8, help="seconds in which they come (default 8)")
    parser.add_argument("--every", type=float, default=5, help="seconds between two words of a slow client (default 5)")
    parser.add_argument("--at-once", type=int, default=3_000, help="clients that connect in one go (default 3000)")
    parser.add_argument("--only", default="", help="names of kinds, separated by semicolons (default: all)")
    parser.add_argument("--json", help="a file for the same figures")
    wanted = parser.parse_args()
    os.sched_setaffinity(0, os.sched_getaffinity(0) - clients.CORES or clients.CORES)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended on the way out
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 3 * wanted.clients:
        raise SystemExit(f"{wanted.clients} clients need a limit of {3 * wanted.clients} descriptors; it is {hard}")
    only = [name.strip() for name in wanted.only.split(";") if name.strip()]
    chosen = [kind for kind in clients.kinds() if not only or kind.name in only]
    program, found = os.path.abspath(wanted.program), []
    print("| kind | clients | cut | MiB before | MiB at most | KiB each | processor %, quiet | beside | p99 ms, quiet |"
          " beside | ratio | without the proxy | good failed |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        good, good_port = instance()
        try:
            for kind in chosen:
                slow, slow_port = instance(clients.CORES)
                try:
                    found.append(measure(program, folder, kind, wanted, (good_port, slow_port)))
                finally:
                    slow.terminate()
                    slow.join(10)
                print(line(found[-1]), flush=True)
            at_once = {}
            if wanted.at_once and not only:
                slow, slow_port = instance(clients.CORES)
                with Proxy(program, folder, good_port, slow_port) as proxy:
                    # Those who come stand for other machines, as the slow clients do.
                    os.sched_setaffinity(0, clients.CORES)
                    connected, answered = clients.at_once(proxy.listens[0], wanted.at_once)
                slow.terminate()
                at_once = {"clients": wanted.at_once, "connected_s": connected, "answered_s": answered}
                print(f"\n{wanted.at_once:,} at once: connected after {connected or -1:.3f} s, answered after {answered or -1:.3f} s")
        finally:
            good.terminate()
            good.join(10)
    if wanted.json:
        with open(wanted.json, "w") as file:
            json.dump({"kinds": found, "at_once": at_once}, file, indent=2)


if __name__ == "__main__":
    sys.exit(main())

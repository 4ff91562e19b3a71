"""Runs the load generators and reads what they, and /proc, say."""

import os
import pathlib
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")

# wrk's own text rounds; its `done` hook has the exact numbers. Headers and method come as arguments after `--`.
WRK_SCRIPT = """
function init(args)
  wrk.method = args[1]
  if args[2] ~= "0" then wrk.body = string.rep("u", tonumber(args[2])) end
  for i = 3, #args, 2 do wrk.headers[args[i]] = args[i + 1] end
end
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format("RESULT %d %d %d %.1f %.1f %d %d %d %d", summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), e.connect, e.read + e.write, e.status, e.timeout))
end
"""


class Processes:
    """What this run started. Everything is ended by its own id, whatever happens."""

    def __init__(self, environment):
        self.environment = environment
        self.running = []

    def start(self, command, log):
        with open(log, "ab") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       env=self.environment, start_new_session=True)
        self.running.append(process)
        return process

    def stop(self, process):
        children = family(process.pid)
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            pass
        for pid in children:
            try:
                if process.poll() is None or pid != process.pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait(5)
        self.running.remove(process)

    def stop_all(self):
        for process in list(self.running):
            self.stop(process)


given = set()


def free_ports(count):
    """Ports that nobody listens on now, below those that the system gives to connections: none of these takes one. None is
    given twice in a run: who asked for it may not listen yet."""
    sockets = []
    try:
        while len(sockets) < count:
            port, one = random.randrange(12_000, 32_000), socket.socket()
            try:
                if port in given:
                    raise OSError(f"{port} is given")
                one.bind(("127.0.0.1", port))
                given.add(port)
                sockets.append(one)
            except OSError:
                one.close()
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_for(port, process, log, seconds=15):
    """Until somebody accepts on the port; says what the process printed when it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    text = pathlib.Path(log).read_text(errors="replace")[-1500:]
    raise RuntimeError(f"nothing listens on port {port}; {process.args[3]} printed:\n{text}")


def family(pid):
    """A process and its children's children, by id."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    out = [pid]
    for one in out:
        out += [child for child, parent in parents.items() if parent == one]
    return out


def processor_seconds(pids):
    """User and system time of all threads of these processes."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_mib(pids):
    """Resident memory, pages shared between the processes counted once."""
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def _watched(command, environment, proxy, seconds):
    """Runs a load generator; gives its output, the proxy's processor seconds and its memory near the end."""
    pids = family(proxy.pid)
    before, began = processor_seconds(pids), time.monotonic()
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                            start_new_session=True)
    try:
        time.sleep(seconds * 0.8)
        memory = resident_mib(pids)
        text, _ = load.communicate(timeout=seconds + 30)
    finally:
        if load.poll() is None:
            load.kill()
            load.wait(5)
    elapsed = time.monotonic() - began
    if load.returncode != 0:
        raise RuntimeError(f"{command[3]} failed:\n{text[-1500:]}")
    return text, processor_seconds(pids) - before, memory, elapsed


def wrk(bench, work, url, proxy, seconds):
    """The most that the proxy gives: requests/s, p50 and p99 in ms, processor µs a request, busy share, memory."""
    command = ["taskset", "-c", str(bench.options.load_cpu), bench.programs["wrk"], "-t1", f"-c{work['connections']}",
               f"-d{seconds}s", "--timeout", "10s", "-s", str(bench.script), url + work["path"], "--",
               "POST" if work["body"] else "GET", str(len(work["body"]))] + [part for pair in work["headers"] for part in pair]
    text, processor, memory, elapsed = _watched(command, bench.load_environment, proxy, seconds)
    requests, micros, _, p50, p99, *errors = _result(text)
    requests = max(requests, 1)
    return {
        "rps": requests / (micros / 1e6), "p50_ms": p50 / 1000, "p99_ms": p99 / 1000,
        "cpu_us": processor * 1e6 / requests, "busy": processor / elapsed, "memory_mib": memory, "errors": sum(errors),
    }


def h2load(bench, work, url, proxy, seconds, rate=None):
    """HTTP/2, as much as goes through; or at a fixed rate, of HTTP/1.1 where the work is. p50 and p99 of every request."""
    log = bench.folder / "h2load.log"
    log.unlink(missing_ok=True)
    streams = work.get("streams")
    command = ["taskset", "-c", str(bench.options.load_cpu), bench.programs["h2load"], "-t1", f"-c{work['connections']}",
               f"-D{seconds}", f"--log-file={log}"]
    command += [f"-m{streams}"] if streams else ["--h1"]
    command += [f"--rps={rate / work['connections']:.3f}"] if rate else []
    command += [f"-H{name}: {value}" for name, value in work["headers"]]
    if work["body"]:
        sent = bench.folder / "h2load.body"
        sent.write_bytes(work["body"])
        command += ["-d", str(sent)]
    text, processor, memory, elapsed = _watched(command + [url + work["path"]], bench.load_environment, proxy, seconds)
    micros, bad = [], 0
    with open(log) as lines:
        for line in lines:
            _, status, micro = line.split()
            micros.append(int(micro))
            bad += status != "200"
    micros.sort()
    at = lambda share: micros[min(len(micros) - 1, int(len(micros) * share))] / 1000  # noqa: E731
    if not micros:
        raise RuntimeError(f"h2load sent nothing to {url}:\n{text[-1500:]}")
    if work["answer"] is not None:
        # An error of gRPC is a 200 without a message. The last answers may be cut by the end.
        size = int(re.search(r"\((\d+)\) data", text)[1])
        bad += max(0, len(micros) - size // len(work["answer"]))
    return {"rps": len(micros) / seconds, "p50_ms": at(0.5), "p99_ms": at(0.99), "cpu_us": processor * 1e6 / len(micros),
            "busy": processor / elapsed, "memory_mib": memory, "errors": bad}


def websocket(bench, work, port, proxy, seconds):
    """As many messages as go through, echo for echo."""
    command = ["taskset", "-c", str(bench.options.load_cpu), sys.executable, str(HERE / "websocket.py"), "load", str(port),
               str(work["connections"]), str(seconds)]
    text, processor, memory, elapsed = _watched(command, bench.environment, proxy, seconds)
    messages, p50, p99 = _result(text)
    return {"rps": messages / seconds, "p50_ms": p50 / 1000, "p99_ms": p99 / 1000, "cpu_us": processor * 1e6 / messages,
            "busy": processor / elapsed, "memory_mib": memory, "errors": 0}


def _result(text):
    line = next((line for line in text.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"the load says no result:\n{text[-1500:]}")
    return [float(field) for field in line.split()[1:]]


def median(results):
    """Field by field; errors are added up."""
    out = {key: statistics.median(result[key] for result in results) for key in results[0]}
    out["errors"] = sum(result["errors"] for result in results)
    out["rounds"] = len(results)
    return out

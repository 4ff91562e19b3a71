"""The two ends that behave: an instance, and clients whose time is measured."""

import asyncio
import http.client
import multiprocessing
import os
import resource
import socket
import time

LARGE = 16 << 20
SEGMENT = 1460


class Instance(asyncio.Protocol):
    """Answers `ok`, or 16 MiB, or when a request's body has ended."""

    def connection_made(self, transport):
        self.transport, self.read, self.body, self.left = transport, b"", 0, 0
        transport.set_write_buffer_limits(high=65_536)

    def data_received(self, data):
        if self.body:
            taken = min(self.body, len(data))
            self.body -= taken
            data = data[taken:]
            if not self.body:
                self.say(b"ok")
        self.read += data
        while not self.body and b"\r\n\r\n" in self.read:
            head, self.read = self.read.split(b"\r\n\r\n", 1)
            if head.startswith(b"GET /large"):
                self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
                self.left = LARGE
                self.resume_writing()
            elif head.startswith(b"POST"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith((b"content-length", b"transfer")))
                self.body = int(length.split(b":")[1]) if length.startswith(b"content") else 1 << 40
            else:
                self.say(b"ok")

    def say(self, body):
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    def pause_writing(self):
        self.full = True

    def resume_writing(self):
        self.full = False
        while self.left and not self.full and not self.transport.is_closing():
            piece = min(self.left, 65_536)
            self.left -= piece
            self.transport.write(bytes(piece))


def unhindered():
    """Good clients and their instance stand for other machines: they have the core whenever they want it, and do not wait
    for the end of the proxy's turn at it, which would be counted as the proxy's answer. Needs root; without it they wait."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pass


def serve(port, cores):
    if cores:
        os.sched_setaffinity(0, cores)
    else:
        unhindered()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def run():
        listener = socket.socket()
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        listener.bind(("127.0.0.1", 0))
        port.put(listener.getsockname()[1])
        await (await asyncio.get_running_loop().create_server(Instance, sock=listener, backlog=4_096)).serve_forever()

    asyncio.run(run())


def instance(cores=()):
    """An instance in a process of its own, and its port. `cores`: where it runs, if it is not the one of the good."""
    port = multiprocessing.Queue()
    process = multiprocessing.Process(target=serve, args=(port, cores), daemon=True)
    process.start()
    return process, port.get(timeout=30)


def ask(address, rate, seconds, out):
    """One request after another at `rate` a second, every tenth on a connection of its own. A request's time counts from
    when it was due, so that one that had to wait for a slow one before it is not flattered. `out` gets (milliseconds of
    the good, how many failed)."""
    unhindered()
    took, failed = [], 0
    begun = time.monotonic()
    kept = http.client.HTTPConnection(*address, timeout=5)
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        time.sleep(max(0, due - time.monotonic()))
        fresh = http.client.HTTPConnection(*address, timeout=5) if number % 10 == 9 else kept
        try:
            fresh.request("GET", "/", headers={"host": "web.test"})
            answer = fresh.getresponse()
            if answer.status != 200 or answer.read() != b"ok":
                raise OSError(f"status {answer.status}")
            took.append((time.monotonic() - due) * 1e3)
        except (OSError, http.client.HTTPException):
            failed += 1
            kept.close()
        if fresh is not kept:
            fresh.close()
    out.put((took, failed))


class Good:
    """Good clients in a process of their own, for a while."""

    def __init__(self, address, seconds, rate=200):
        self.out = multiprocessing.Queue()
        self.process = multiprocessing.Process(target=ask, args=(address, rate, seconds, self.out), daemon=True)
        self.process.start()

    def heard(self):
        """(p50, p99 in milliseconds, asked, failed)."""
        took, failed = self.out.get(timeout=600)
        self.process.join()
        took.sort()
        at = lambda share: took[min(len(took) - 1, int(len(took) * share))] if took else float("inf")
        return at(0.5), at(0.99), len(took) + failed, failed

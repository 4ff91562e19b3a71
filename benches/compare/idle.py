"""What connections cost that do nothing: memory of each, and the processor's time while nobody speaks.

Each connection is opened, makes one request, and is left alone. The first tenth is not counted, so that what the
allocator and the tables take once is not divided among few.
"""

import resource
import socket
import ssl
import time

import load
from peers.setup import NAME

HTTP1 = f"GET / HTTP/1.1\r\nhost: {NAME}\r\n\r\n".encode()
# The preface, empty SETTINGS; a HEADERS frame: GET, http, /, :authority; PING.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4)
FIELDS = b"\x82\x86\x84\x41" + bytes([len(NAME)]) + NAME.encode()
SETTINGS_ACK = bytes(3) + b"\x04\x01" + bytes(4)
HEADERS, DATA, SETTINGS, END_STREAM, ACK = 1, 0, 4, 1, 1
STILL_SECONDS, SAMPLE = 5, 50


def measure(proxy, port, kind, connections, certificate, answer):
    """KiB a connection, MiB before and after, and processor milliseconds a second while nothing happens."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < connections * 1.1 + 1000:
        raise RuntimeError(f"{connections} idle connections need {connections * 1.1 + 1000:,.0f} descriptors (ulimit -Hn), not {hard}")
    pids = load.family(proxy.pid)
    opener = {"plain": Plain, "tls": lambda *given: Tls(*given, certificate), "h2": Http2}[kind](port, answer)
    warm = [opener.opened() for _ in range(connections // 10)]
    before = _settled(pids)
    streams = [opener.opened() for _ in range(connections)]
    after = _settled(pids)
    began, spent = time.monotonic(), load.processor_seconds(pids)
    time.sleep(STILL_SECONDS)
    spent, still = load.processor_seconds(pids) - spent, time.monotonic() - began
    closed = 0
    for stream in streams[::max(1, len(streams) // SAMPLE)]:
        try:
            opener.ask(stream)
        except (OSError, RuntimeError):
            closed += 1
    for stream in warm + streams:
        stream.close()
    return {"kib": (after - before) * 1024 / len(streams), "before_mib": before, "after_mib": after,
            "idle_ms": spent * 1000 / still, "errors": closed}


def _settled(pids):
    """The memory once it has stood still for two seconds; what is given back comes a second after the last byte."""
    before, still = 0.0, 0
    for _ in range(60):
        now = load.resident_mib(pids)
        still = still + 1 if abs(now - before) < 0.1 else 0
        if still == 4:
            return now
        before = now
        time.sleep(0.5)
    return before


class Plain:
    """HTTP/1.1."""

    def __init__(self, port, answer):
        self.address, self.answer = ("127.0.0.1", port), answer

    def opened(self):
        stream = self.connect()
        self.ask(stream)
        return stream

    def connect(self):
        stream = socket.create_connection(self.address, timeout=30)
        # The request is not held back until the server has acknowledged the end of the handshake.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    def ask(self, stream):
        """One request whose answer is the right one."""
        stream.sendall(HTTP1)
        read = b""
        while not read.endswith(self.answer):
            if read[9:12] not in (b"", b"2", b"20", b"200"):
                raise RuntimeError(f"not the answer: {read!r}")
            piece = stream.recv(65536)
            if not piece:
                raise RuntimeError(f"an idle connection was closed: {read!r}")
            read += piece


class Tls(Plain):
    """HTTP/1.1 over TLS."""

    def __init__(self, port, answer, certificate):
        super().__init__(port, answer)
        self.context = ssl.create_default_context(cafile=certificate / "cert.pem")

    def connect(self):
        return self.context.wrap_socket(super().connect(), server_hostname=NAME)


class Http2(Plain):
    """HTTP/2 with prior knowledge, one stream after another."""

    def __init__(self, port, answer):
        super().__init__(port, answer)
        self.streams = {}

    def connect(self):
        stream = super().connect()
        stream.sendall(PREFACE)
        self.streams[stream] = 1
        return stream

    def ask(self, stream):
        number = self.streams[stream]
        self.streams[stream] += 2
        stream.sendall(len(FIELDS).to_bytes(3, "big") + b"\x01\x05" + number.to_bytes(4, "big") + FIELDS)
        read, body = b"", b""
        while True:
            while len(read) < 9 or len(read) < 9 + int.from_bytes(read[:3], "big"):
                piece = stream.recv(65536)
                if not piece:
                    raise RuntimeError(f"an idle connection was closed: {read!r}")
                read += piece
            size, kind, flags, on = int.from_bytes(read[:3], "big"), read[3], read[4], int.from_bytes(read[5:9], "big")
            payload, read = read[9:9 + size], read[9 + size:]
            if kind == SETTINGS and not flags & ACK:
                stream.sendall(SETTINGS_ACK)
            elif kind == DATA and on == number:
                body += payload
            if on == number and kind in (HEADERS, DATA) and flags & END_STREAM:
                break
        if body != self.answer:
            raise RuntimeError(f"the answer was {body!r}")

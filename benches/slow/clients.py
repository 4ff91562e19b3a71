"""Clients that hold on to a proxy, many of each kind in one thread: what each says, and when it says more.

A client that is cut comes back, as one with bad intentions would; a listener's limits are not its end.
"""

import multiprocessing
import os
import select
import socket
import ssl
import time
from dataclasses import dataclass

HOST = "slow.test"
# The core of slow clients and of their instance, which stand for other machines; nobody else's where there are several.
CORES = {max(os.sched_getaffinity(0))}
SOURCES = [f"127.0.0.{last}" for last in range(2, 22)]
# A loopback's segments of 64 KiB would have the system buffer megabytes for each client; these are Ethernet's.
SEGMENT = 1460

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, WINDOW_UPDATE, DATA = 1, 4, 8, 0
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def head(method, path):
    """A request's fields, written out where HPACK's table has them not."""
    return b"%c\x86\x04%c%b\x41%c%b" % (
        {"GET": 0x82, "POST": 0x83}[method], len(path), path.encode(), len(HOST), HOST.encode())


def hello2(window=None, room=0):
    """The preface, settings, their acknowledgement, and `room` for all streams together."""
    settings = b"" if window is None else b"\x00\x04" + window.to_bytes(4, "big")
    begun = PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, ACK, 0)
    return begun + (frame(WINDOW_UPDATE, 0, 0, room.to_bytes(4, "big")) if room else b"")


def asked1(method, path, more=""):
    return f"{method} {path} HTTP/1.1\r\nhost: {HOST}\r\n{more}".encode()


def greeting():
    """What a client of TLS says first."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=HOST)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


@dataclass
class Kind:
    """What one sort of client does. `piece`: said at every beat, byte `n` of it if `byte_by_byte`."""
    name: str
    what: str
    begin: bytes
    piece: bytes = b""
    byte_by_byte: bool = False
    tls: bool = False            # behind a handshake
    tls_port: bool = False       # to the encrypted listener, without one
    alpn: str = "http/1.1"
    reads: bool = True
    again: bytes = b""           # a stream that was taken back is asked for again: its head


def kinds():
    large, post = head("GET", "/large"), head("POST", "/")
    wide = hello2(window=(1 << 31) - 1, room=1 << 30)
    return [
        Kind("slow head", "a field every beat, never the end", asked1("GET", "/"), b"x-more: 1\r\n"),
        Kind("slow body", "a byte every beat", asked1("POST", "/", "content-length: 1000000\r\n\r\n"), b"x"),
        Kind("reads nothing", "asks for 16 MiB", asked1("GET", "/large", "\r\n"), reads=False),
        Kind("idle", "one request, then silence", asked1("GET", "/", "\r\n")),
        Kind("TLS, slow handshake", "a byte every beat", b"", greeting(), byte_by_byte=True, tls_port=True),
        Kind("TLS, idle", "one request, then silence", asked1("GET", "/", "\r\n"), tls=True, reads=False),
        Kind("TLS, reads nothing", "asks for 16 MiB", asked1("GET", "/large", "\r\n"), tls=True, reads=False),
        Kind("h2, idle", "one request, then silence",
             hello2() + frame(HEADERS, END_STREAM | END_HEADERS, 1, head("GET", "/"))),
        Kind("h2, slow head", "half a head, never the rest", hello2() + frame(HEADERS, END_STREAM, 1, large)),
        Kind("h2, slow body", "a byte every beat", hello2() + frame(HEADERS, END_HEADERS, 1, post), frame(DATA, 0, 1, b"x")),
        Kind("h2, zero window", "asks for 16 MiB, lets nothing in",
             hello2(window=0) + frame(HEADERS, END_STREAM | END_HEADERS, 1, large), again=large),
        Kind("h2, reads nothing", "asks for 16 MiB, says that all may come",
             wide + frame(HEADERS, END_STREAM | END_HEADERS, 1, large), reads=False),
    ]


class Client:
    """One connection and what it has said."""

    __slots__ = ("kind", "socket", "beats", "stream")

    def __init__(self, kind, made):
        self.kind, self.socket, self.beats, self.stream = kind, made, 0, 1
        self.say(kind.begin)

    def say(self, bytes_):
        try:
            if bytes_:
                self.socket.send(bytes_)
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass  # It does not fit; a slow client does not mind.
        except OSError:
            pass  # Cut; the next look at the sockets tells.

    def beat(self, restart_after):
        self.beats += 1
        kind = self.kind
        if kind.byte_by_byte:
            return self.say(kind.piece[self.beats - 1:self.beats])
        if kind.again and self.beats % restart_after == 0:
            self.stream += 2
            return self.say(frame(HEADERS, END_STREAM | END_HEADERS, self.stream, kind.again))
        return self.say(kind.piece)

    def drained(self):
        """False: the other side has closed."""
        try:
            return bool(self.socket.recv(65_536)) if self.kind.reads else False
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False


class Crowd:
    """`count` clients of a kind, the first of which come, and come back, within `arriving` seconds. `run` keeps them
    there."""

    def __init__(self, kind, count, plain, tls, cafile, every, arriving):
        self.kind, self.count, self.every, self.arriving = kind, count, every, arriving
        self.address = tls if kind.tls or kind.tls_port else plain
        self.context = None
        if kind.tls:
            self.context = ssl.create_default_context(cafile=cafile)
            self.context.set_alpn_protocols([kind.alpn])
        self.clients, self.poll = {}, select.epoll()
        self.opened = self.cut = self.refused = 0
        self.began, self.came, self.said = None, 0, 0

    def open(self):
        """Adds a client; False: it could not connect."""
        made = socket.socket()
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: ports are counted per pair of addresses
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        made.settimeout(10)
        try:
            made.bind((SOURCES[self.opened % len(SOURCES)], 0))
            made.connect(self.address)
            if self.context:
                made = self.context.wrap_socket(made, server_hostname=HOST)
        except OSError:
            self.refused += 1
            made.close()
            return False
        made.setblocking(False)
        self.opened += 1
        self.clients[made.fileno()] = Client(self.kind, made)
        # Who does not read learns of its end by this alone.
        self.poll.register(made.fileno(), select.EPOLLRDHUP | (select.EPOLLIN if self.kind.reads else 0))
        return True

    def close(self, fd):
        self.poll.unregister(fd)
        self.clients.pop(fd).socket.close()

    def look(self, timeout):
        """Reads what came, and lets those come back that were cut."""
        cut = []
        for fd, event in self.poll.poll(timeout):
            ended = event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
            if ended or not self.clients[fd].drained():
                cut.append(fd)
        for fd in cut:
            self.close(fd)
        self.cut += len(cut)

    def fill(self, now):
        """Opens as many as are missing, and as may come by now."""
        may = int((now - self.began) / self.arriving * self.count) + 1
        if may - self.came > self.count // 10:
            self.came = may - self.count // 10  # Those who could not come before do not come all at once.
        while self.came < may and len(self.clients) < self.count:
            self.came += 1
            self.open()

    def run(self, seconds):
        """Every client speaks once in `every` seconds, evenly spread; also over several calls."""
        until = time.monotonic() + seconds
        self.began = self.began or time.monotonic()
        restart_after = max(1, round(35 / self.every))
        while (now := time.monotonic()) < until:
            self.fill(now)
            turn = list(self.clients)
            due = int((now - self.began) / self.every * self.count)
            for at in range(self.said, due if turn else self.said):
                self.clients[turn[at % len(turn)]].beat(restart_after)
            self.said = due
            self.look(0.01)

    def leave(self):
        for fd in list(self.clients):
            self.close(fd)


class Apart:
    """A crowd in a process of its own, on a core of its own, for the time of a `with`. `told` afterwards:
    how many clients there were at the end, how often one was cut, how often one could not connect."""

    def __init__(self, crowd):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self.stay, args=(crowd, theirs), daemon=True)
        self.told = None

    @staticmethod
    def stay(crowd, pipe):
        os.sched_setaffinity(0, CORES)
        while not pipe.poll():
            crowd.run(0.2)
        pipe.send((len(crowd.clients), crowd.cut, crowd.refused))
        crowd.leave()

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, failed, *_):
        if failed:
            self.process.kill()
        else:
            self.ours.send("enough")
            self.told = self.ours.recv()
        self.process.join(60)


def at_once(address, count):
    """Connects `count` clients in one go, each with a request. Seconds until all are connected, until all are answered."""
    begun, poll, made = time.monotonic(), select.epoll(), {}
    for at in range(count):
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        one.bind((SOURCES[at % len(SOURCES)], 0))
        one.connect_ex(address)
        made[one.fileno()] = one
        poll.register(one.fileno(), select.EPOLLOUT)
    connected, open_, answered = None, 0, 0
    request = asked1("GET", "/", "\r\n")
    while answered < count and time.monotonic() < begun + 30:
        for fd, event in poll.poll(0.1):
            if event & select.EPOLLOUT:
                open_ += 1
                made[fd].send(request)
                poll.modify(fd, select.EPOLLIN)
            elif made[fd].recv(4_096):
                answered += 1
                poll.unregister(fd)
        if connected is None and open_ == count:
            connected = time.monotonic() - begun
    ended = time.monotonic() - begun
    for one in made.values():
        one.close()
    return connected, ended if answered == count else None

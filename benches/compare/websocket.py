"""WebSocket messages for the comparison: an instance that echoes, and a load of one message at a time a connection.

    websocket.py echo PORT...
    websocket.py load PORT CONNECTIONS SECONDS    prints: messages, p50 and p99 in µs

Both are one thread around epoll. A message is one masked binary frame of 64 bytes; the echo is compared.
"""

import base64
import hashlib
import select
import socket
import sys
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = base64.b64encode(b"pointsman-bench.")
HEAD = (b"GET /socket HTTP/1.1\r\nhost: compare.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: " + KEY + b"\r\n\r\n")
MASK, PAYLOAD = b"\x37\xfa\x21\x3d", b"m" * 64
SIZE = len(PAYLOAD)
FRAME = bytes([0x82, 0x80 | SIZE]) + MASK + bytes(byte ^ MASK[n % 4] for n, byte in enumerate(PAYLOAD))
ECHO = bytes([0x82, SIZE]) + PAYLOAD


def connected(port):
    """A connection after the handshake, and the head that was answered."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=10)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(HEAD)
    head = b""
    while b"\r\n\r\n" not in head and (piece := stream.recv(4096)):
        head += piece
    return stream, head


def load(port, connections, seconds):
    """As many messages as go through; the latencies in µs, sorted."""
    polled, streams, sent, micros = select.epoll(), {}, {}, []
    for _ in range(connections):
        stream, head = connected(port)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"not upgraded: {head!r}")
        streams[stream.fileno()] = stream
        polled.register(stream, select.EPOLLIN)
    for number, stream in streams.items():
        sent[number] = time.perf_counter_ns()
        stream.send(FRAME)
    parts, end = {}, time.perf_counter_ns() + int(seconds * 1e9)
    while (now := time.perf_counter_ns()) < end:
        events = polled.poll(5)
        if not events:
            raise SystemExit("no message came back for 5 s")
        for number, _ in events:
            stream = streams[number]
            read = parts.pop(number, b"") + stream.recv(4096)
            if read != ECHO:
                if read and ECHO.startswith(read):
                    parts[number] = read
                    continue
                raise SystemExit(f"a message came back as {read!r}")
            now = time.perf_counter_ns()
            micros.append((now - sent[number]) // 1000)
            sent[number] = now
            stream.send(FRAME)
    return sorted(micros)


def echo(ports):
    """Answers handshakes, and then every masked frame of a payload under 126 bytes with the same, unmasked."""
    polled, listeners, streams = select.epoll(), {}, {}
    for port in ports:
        listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        listeners[listener.fileno()] = listener
        polled.register(listener, select.EPOLLIN)
    while True:
        for number, _ in polled.poll():
            if number in listeners:
                stream, _ = listeners[number].accept()
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                streams[stream.fileno()] = [stream, b"", False]
                polled.register(stream, select.EPOLLIN)
                continue
            state = streams[number]
            try:
                read = state[0].recv(65536)
            except OSError:
                read = b""
            if not read:
                polled.unregister(number)
                streams.pop(number)[0].close()
                continue
            answer, state[1], state[2] = _answered(state[1] + read, state[2])
            if answer:
                state[0].send(answer)


def _answered(read, upgraded):
    """What is answered to these bytes, what is left of them, and whether the handshake is over."""
    answer = b""
    if not upgraded:
        if b"\r\n\r\n" not in read:
            return b"", read, False
        head, read = read.split(b"\r\n\r\n", 1)
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])}
        accept = base64.b64encode(hashlib.sha1(fields.get(b"sec-websocket-key", b"") + GUID).digest())
        answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: " + accept + b"\r\n\r\n"
    while len(read) >= 6 and len(read) >= 6 + (size := read[1] & 0x7F):
        mask = int.from_bytes((read[2:6] * (size // 4 + 1))[:size], "big")
        payload = (int.from_bytes(read[6:6 + size], "big") ^ mask).to_bytes(size, "big")
        answer += bytes([read[0], size]) + payload
        read = read[6 + size:]
    return answer, read, True


def main():
    if sys.argv[1] == "echo":
        echo([int(port) for port in sys.argv[2:]])
    else:
        micros = load(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
        if not micros:
            raise SystemExit("no message came back")
        print("RESULT", len(micros), micros[len(micros) // 2], micros[min(len(micros) - 1, len(micros) * 99 // 100)])


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What an idle connection costs: benches/idle.py PROGRAM [--plain 10000] [--tls 2000] [--h2 2000]

Starts `PROGRAM run` before one instance, opens connections, makes one request on each, leaves them idle, and prints how
much the proxy's resident memory (VmRSS) has grown, in KiB a connection. Every kind is measured on a process of its own,
after a first tenth of the connections that is not counted, so that what the allocator and the tables take once is not
divided among few. Needs Linux, openssl, and descriptors (`ulimit -Hn`) for twice the connections.
"""

import argparse
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HOST = "web.test"
HTTP1 = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
# The preface, empty SETTINGS, and a HEADERS frame of stream 1: GET, http, /, :authority.
FIELDS = b"\x82\x86\x84\x41" + bytes([len(HOST)]) + HOST.encode()
HTTP2 = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4)
         + len(FIELDS).to_bytes(3, "big") + b"\x01\x05" + (1).to_bytes(4, "big") + FIELDS)
SETTINGS_ACK = bytes(3) + b"\x04\x01" + bytes(4)


def instance():
    """Answers every request with `ok`, on kept connections."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def serve(stream):
        read = b""
        while piece := stream.recv(65536):
            read += piece
            while b"\r\n\r\n" in read:
                _, read = read.split(b"\r\n\r\n", 1)
                stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def settled(pid):
    """The resident memory once it has stood still for half a second."""
    before = -1
    for _ in range(40):
        now = resident(pid)
        if abs(now - before) < 64:
            return now
        before = now
        time.sleep(0.5)
    return before


def plain(address, _):
    stream = socket.create_connection(address, timeout=30)
    stream.sendall(HTTP1)
    return stream, b"\r\n\r\nok"


def tls(address, context):
    stream = context.wrap_socket(socket.create_connection(address, timeout=30), server_hostname=HOST)
    stream.sendall(HTTP1)
    return stream, b"\r\n\r\nok"


def h2(address, _):
    stream = socket.create_connection(address, timeout=30)
    stream.sendall(HTTP2)
    stream.sendall(SETTINGS_ACK)
    return stream, b"\x00\x00\x02\x00\x01\x00\x00\x00\x01ok"


def opened(kind, address, context, count):
    streams = []
    for _ in range(count):
        stream, until = kind(address, context)
        read = b""
        while until not in read and not (kind is h2 and read.endswith(b"ok")):
            piece = stream.recv(65536)
            if not piece:
                raise SystemExit(f"closed after {len(streams)} connections: {read!r}")
            read += piece
        streams.append(stream)
    return streams


def measure(program, kind, count, folder):
    with open(f"{folder}/catalog.yaml", "w") as file:
        file.write(f"services: {{web: [{{id: one, address: 127.0.0.1, port: {instance()}}}]}}\n")
    with open(f"{folder}/web.yaml", "w") as file:
        file.write("service: web\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n")
    with open(f"{folder}/pointsman.yaml", "w") as file:
        file.write(
            f"listen: [{{address: '127.0.0.1:0'}},"
            f" {{address: '127.0.0.1:0', tls: {{cert: {folder}/cert.pem, key: {folder}/key.pem}}}}]\n"
            f"admin: {{address: '127.0.0.1:0'}}\ncatalog: {{file: {folder}/catalog.yaml}}\nrules: {folder}/web.yaml\n"
            "limits: {keep_alive: 10m, connections: 20000}\n")
    with open(f"{folder}/log", "w") as log:
        proxy = subprocess.Popen([program, "run", "--config", f"{folder}/pointsman.yaml"], stdout=subprocess.PIPE,
                                 stderr=log, text=True)
    try:
        line = proxy.stdout.readline()
        if not line:
            raise SystemExit(open(f"{folder}/log").read())
        listens = [text.rsplit(":", 1) for text in json.loads(line)["listen"]]
        address = listens[1 if kind is tls else 0]
        address = (address[0], int(address[1]))
        context = ssl.create_default_context(cafile=f"{folder}/cert.pem")
        deadline = time.monotonic() + 20
        while "everything wanted is known" not in open(f"{folder}/log").read() and time.monotonic() < deadline:
            time.sleep(0.1)
        warm = opened(kind, address, context, count // 10)
        before = settled(proxy.pid)
        streams = opened(kind, address, context, count)
        after = settled(proxy.pid)
        each = (after - before) / len(streams)
        print(f"| {kind.__name__} | {len(streams):,} | {before / 1024:.1f} | {after / 1024:.1f} | {each:.1f} |", flush=True)
        for stream in warm + streams:
            stream.close()
    finally:
        proxy.terminate()
        proxy.terminate()
        proxy.wait(60)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    for kind, count in (("plain", 10_000), ("tls", 2_000), ("h2", 2_000)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    wanted = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("| kind | connections | MiB before | MiB after | KiB each |\n| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem", "-subj", f"/CN={HOST}", "-addext",
                        f"subjectAltName=DNS:{HOST}", "-days", "2"], check=True, capture_output=True)
        for kind in (plain, tls, h2):
            count = getattr(wanted, kind.__name__)
            if count:
                measure(os.path.abspath(wanted.program), kind, count, folder)


if __name__ == "__main__":
    sys.exit(main())

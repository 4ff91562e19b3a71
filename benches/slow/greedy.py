#!/usr/bin/env python3
"""What fast clients cost the others: benches/slow/greedy.py PROGRAM [--downloads 0,1,4,40] [--seconds 8]

Starts `PROGRAM run` on one core, with so many clients behind it that download without end from an instance on another
core, and good clients that ask another instance for two bytes, 200 times a second. Prints their p50 and p99 through the
proxy, and without it; a request's time counts from when it was due. All on loopback; it ends by itself.
"""

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time

import clients
from peers import Good, instance
from slow import Proxy, certificate

PIECE = 1 << 20
ENDLESS = 1 << 40


def pour(connection):
    """Answers with more than anybody waits for."""
    try:
        while connection.recv(65_536):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % ENDLESS)
            while True:
                connection.sendall(bytes(PIECE))
    except OSError:
        pass  # The client has left.


def fountain(port):
    """An instance that sends as fast as it can, to each client in a thread of its own."""
    os.sched_setaffinity(0, clients.CORES)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    port.put(listener.getsockname()[1])
    while True:
        threading.Thread(target=pour, args=(listener.accept()[0],), daemon=True).start()


def drink(address, stop, drunk):
    """Reads as fast as it can until it is told to stop; adds up the bytes."""
    with socket.create_connection(address) as connection:
        connection.sendall(clients.asked1("GET", "/", "\r\n"))
        connection.settimeout(10)
        room = bytearray(PIECE)
        read = 0
        while not stop.is_set() and (came := connection.recv_into(room)):
            read += came
        with drunk.get_lock():
            drunk.value += read


def drinkers(address, count, stop, drunk):
    os.sched_setaffinity(0, clients.CORES)
    threads = [threading.Thread(target=drink, args=(address, stop, drunk), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def measure(program, folder, downloads, seconds, ports):
    """A line of the table."""
    stop, drunk = multiprocessing.Event(), multiprocessing.Value("Q", 0)
    with Proxy(program, folder, *ports) as proxy:
        crowd = multiprocessing.Process(target=drinkers, args=(proxy.listens[0], downloads, stop, drunk), daemon=True)
        crowd.start()
        began = time.monotonic()
        time.sleep(1)
        good, direct = Good(proxy.listens[0], seconds), Good(("127.0.0.1", ports[0]), seconds)
        heard, control = good.heard(), direct.heard()
        lasted = time.monotonic() - began
        stop.set()
        crowd.join(60)
    megabytes = drunk.value / lasted / 1e6
    cells = [f"{downloads}", f"{megabytes:,.0f}", f"{heard[0]:.2f}", f"{heard[1]:.2f}", f"{control[0]:.2f}", f"{control[1]:.2f}",
             f"{heard[3]:,} of {heard[2]:,}"]
    print("| " + " | ".join(cells) + " |", flush=True)
    return heard[3]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--downloads", default="0,1,4,40", help="how many at a time, separated by commas (default 0,1,4,40)")
    parser.add_argument("--seconds", type=float, default=8, help="for how long each is measured (default 8)")
    wanted = parser.parse_args()
    os.sched_setaffinity(0, os.sched_getaffinity(0) - clients.CORES or clients.CORES)
    port = multiprocessing.Queue()
    pouring = multiprocessing.Process(target=fountain, args=(port,), daemon=True)
    pouring.start()
    good, good_port = instance()
    failed = 0
    print("| downloads | MB/s | p50 ms | p99 ms | p50 without the proxy | p99 | failed |\n|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        ports = (good_port, port.get(timeout=30))
        try:
            for downloads in wanted.downloads.split(","):
                failed += measure(os.path.abspath(wanted.program), folder, int(downloads), wanted.seconds, ports)
        finally:
            for process in (pouring, good):
                process.terminate()
                process.join(10)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

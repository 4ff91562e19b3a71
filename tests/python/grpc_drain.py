"""Calls of grpcio while the proxy drains: `grpc_drain.py ADDRESS AUTHORITY`.

Prints `running` once all is under way; then, after the end: what came of a stream that has an end, of one that has
none, and of unary calls made all the while: how many, and in words those that were lost (begun, yet without an answer).
"""

import sys
import threading
import time

import grpc

address, authority = sys.argv[1:3]
options = [("grpc.default_authority", authority), ("grpc.enable_retries", 0)]


def channel():
    # A pool of its own: otherwise channels with the same arguments share one connection.
    return grpc.insecure_channel(address, options + [("grpc.use_local_subchannel_pool", 1)])


def outcome(call, report, began):
    count = 0
    try:
        for _ in call:
            count += 1
            began.set()
        report.append((count, "OK", ""))
    except grpc.RpcError as error:
        report.append((count, error.code().name, error.details()))


calls, lost, gone = [0], [], threading.Event()


def load():
    unary = channel().unary_unary("/test.Echo/Unary")
    while not gone.is_set():
        try:
            unary(b"x", timeout=30)
            calls[0] += 1
        except grpc.RpcError as error:
            # That nobody listens any more is the end of a drain and no lost call; anything else is one.
            if error.code() != grpc.StatusCode.UNAVAILABLE or "refused" not in error.details():
                lost.append(f"{error.code().name}: {error.details()}")
            return
        time.sleep(0.002)


finite, endless = [], []
kept = channel()
begun = [threading.Event(), threading.Event()]
stream = kept.unary_stream("/test.Echo/ServerStream")
threads = [
    threading.Thread(target=outcome, args=(stream(b"25 0.1", timeout=60), finite, begun[0])),
    threading.Thread(target=outcome, args=(stream(b"100000 0.1", timeout=120), endless, begun[1])),
]
loads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads + loads:
    thread.start()
for event in begun:
    event.wait(30)
while calls[0] < 100 and not lost:
    time.sleep(0.01)
print("running", flush=True)
for thread in loads + threads:
    thread.join()
print("finite", finite[0][0], finite[0][1], flush=True)
print("endless", endless[0][1], endless[0][2], flush=True)
print("unary", calls[0], "lost", len(lost), lost[:3], flush=True)

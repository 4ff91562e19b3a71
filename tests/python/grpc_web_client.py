"""A client of the package `sonora` (gRPC-Web) through the proxy: `grpc_web_client.py PORT HOST [CA]`.

Prints `ok NAME` for each part. The server is grpc_server.py, which knows nothing of gRPC-Web.
"""

import socket
import sys

import grpc
import urllib3
from sonora.client import insecure_web_channel
from sonora.protocol import WebRpcError

port, host = int(sys.argv[1]), sys.argv[2]
ca = sys.argv[3] if len(sys.argv) > 3 else None
look_up = socket.getaddrinfo
# The host is known to nobody but the proxy.
socket.getaddrinfo = lambda name, *args, **more: look_up("127.0.0.1" if name == host else name, *args, **more)

channel = insecure_web_channel(f"{'https' if ca else 'http'}://{host}:{port}")
if ca:
    channel._session = urllib3.PoolManager(ca_certs=ca)


def same(found, wanted):
    if found != wanted:
        raise SystemExit(f"{str(found)[:200]!r} is not {str(wanted)[:200]!r}")


def method(kind, name):
    return getattr(channel, kind)(f"/test.Echo/{name}", request_serializer=bytes, response_deserializer=bytes)


unary = method("unary_unary", "Unary")
for body in [b"", b"a", b"\x00\xff" * 50_000]:
    same(unary(body), body)
for number in range(200):
    same(unary(b"%d" % number), b"%d" % number)
print("ok unary")

stream = method("unary_stream", "ServerStream")
same(list(stream(b"5 0")), [b"0", b"1", b"2", b"3", b"4"])
same(list(stream(b"3 0.1")), [b"0", b"1", b"2"])
print("ok server stream")

try:
    method("unary_unary", "Fail")(b"")
    raise SystemExit("it has not failed")
except WebRpcError as error:
    same(error.code(), grpc.StatusCode.FAILED_PRECONDITION)
    same(error.details(), "no, ünd 100% so")
print("ok status")

answers = method("unary_stream", "FailLate")(b"")
same(next(iter(answers)), b"first")
try:
    list(answers)
    raise SystemExit("it has not failed")
except WebRpcError as error:
    same(error.code(), grpc.StatusCode.DATA_LOSS)
print("ok status behind a message")

try:
    method("unary_unary", "Hold")(b"", timeout=0.5)
    raise SystemExit("it has not failed")
except WebRpcError as error:
    same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
print("ok deadline")

try:
    method("unary_unary", "Nothing")(b"")
    raise SystemExit("it has not failed")
except WebRpcError as error:
    same(error.code(), grpc.StatusCode.UNIMPLEMENTED)
print("ok unimplemented")

"""Calls of grpcio through the proxy: `grpc_client.py ADDRESS AUTHORITY CALLS [CA]`. Prints `ok NAME` for each part."""

import sys
import threading
import time

import grpc

address, authority, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = [("grpc.default_authority", authority), ("grpc.max_receive_message_length", 1 << 24)]
if len(sys.argv) > 4:
    options[0] = ("grpc.ssl_target_name_override", authority)
    roots = open(sys.argv[4], "rb").read()
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)
else:
    channel = grpc.insecure_channel(address, options)

unary = channel.unary_unary("/test.Echo/Unary")
server_stream = channel.unary_stream("/test.Echo/ServerStream")
client_stream = channel.stream_unary("/test.Echo/ClientStream")
bidi = channel.stream_stream("/test.Echo/Bidi")
hold = channel.unary_unary("/test.Echo/Hold")
LONG = 120


def same(found, wanted):
    if found != wanted:
        raise SystemExit(f"{found!r} is not {wanted!r}")


def fails(code, call, *arguments, **more):
    try:
        answer = call(*arguments, **more)
    except grpc.RpcError as error:
        same(error.code(), code)
        return error
    raise SystemExit(f"{code} was expected, there is {answer!r}")


same(unary(b"hello", timeout=LONG), b"hello")
same(unary(b"", timeout=LONG), b"")
large = bytes(range(256)) * (1 << 14)
same(unary(large, timeout=LONG), large)
print("ok unary")

same(list(server_stream(b"100 0", timeout=LONG)), [b"%d" % n for n in range(100)])
same(list(server_stream(b"0 0", timeout=LONG)), [])
print("ok server stream")

same(client_stream((b"%d" % n for n in range(50)), timeout=LONG), b" ".join(b"%d" % n for n in range(50)))
same(client_stream(iter(()), timeout=LONG), b"")
print("ok client stream")

# Each message is sent only once the answer to the one before has come: nothing is held back on the way.
turn = threading.Semaphore(1)


def ping_pong():
    for number in range(50):
        turn.acquire()
        yield b"%d" % number


found = []
for answer in bidi(ping_pong(), timeout=LONG):
    found.append(answer)
    turn.release()
same(found, [b"echo %d" % n for n in range(50)])
print("ok bidi")

began = time.monotonic()
fails(grpc.StatusCode.DEADLINE_EXCEEDED, hold, b"", timeout=0.5)
same(time.monotonic() - began < 10, True)
print("ok deadline")

future = hold.future(b"", timeout=LONG)
stream = server_stream(b"10000 0.01", timeout=LONG)
same(next(stream), b"0")
time.sleep(0.2)
future.cancel()
stream.cancel()
same((future.code(), stream.code()), (grpc.StatusCode.CANCELLED, grpc.StatusCode.CANCELLED))
print("ok cancellation")

error = fails(grpc.StatusCode.FAILED_PRECONDITION, channel.unary_unary("/test.Echo/Fail"), b"", timeout=LONG)
same(error.details(), "no, ünd 100% so")
trailing = dict(error.trailing_metadata())
same((trailing["why"], trailing["grpc-status-details-bin"]), ("asked to", b"\x08\x09\x00\xff"))
late = channel.unary_stream("/test.Echo/FailLate")(b"", timeout=LONG)
same(next(late), b"first")
same(fails(grpc.StatusCode.DATA_LOSS, next, late).details(), "broken on the way")
fails(grpc.StatusCode.UNIMPLEMENTED, channel.unary_unary("/test.Echo/None"), b"", timeout=LONG)
print("ok status")

with_call = channel.unary_unary("/test.Echo/Metadata").with_call
sent = (("word", "hi"), ("raw-bin", b"\x00\x01\xfe"))
answer, call = with_call(b"", metadata=sent, timeout=100)
initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
same((initial["initial"], initial["raw-bin"], trailing["trailing"]), ("hi", b"\x00\x01\xfe", "hi"))
same(80 <= int(answer) <= 100, True)
print("ok metadata")

began = time.monotonic()
for start in range(0, calls, 50):
    futures = [unary.future(b"%d" % n, timeout=LONG) for n in range(start, min(start + 50, calls))]
    same([future.result() for future in futures], [b"%d" % (start + n) for n in range(len(futures))])
print(f"{calls} calls in {time.monotonic() - began:.1f} s", file=sys.stderr)
print(f"ok {calls} calls")

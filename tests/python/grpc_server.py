"""A gRPC server of grpcio with generic handlers (bytes in, bytes out): what calls through the proxy are answered by.

Prints its port; every call that ends by the client's cancellation or deadline prints `cancelled METHOD`. Ends with its
standard input.
"""

import sys
import threading
import time
from concurrent import futures

import grpc


def unary(request, context):
    return request


def server_stream(request, context):
    count, pause = request.split()
    for number in range(int(count)):
        if not context.is_active():
            return
        yield b"%d" % number
        time.sleep(float(pause))


def client_stream(requests, context):
    return b" ".join(requests)


def bidi(requests, context):
    for request in requests:
        yield b"echo " + request


def hold(request, context):
    """Answers nothing until the call ends."""
    over = threading.Event()

    def ended():
        print("cancelled hold", flush=True)
        over.set()

    context.add_callback(ended)
    over.wait(60)
    return b""


def fail(request, context):
    context.set_trailing_metadata((("why", "asked to"), ("grpc-status-details-bin", b"\x08\x09\x00\xff")))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no, ünd 100% so")


def fail_late(request, context):
    yield b"first"
    context.abort(grpc.StatusCode.DATA_LOSS, "broken on the way")


def metadata(request, context):
    sent = dict(context.invocation_metadata())
    context.send_initial_metadata((("initial", sent["word"]), ("raw-bin", sent["raw-bin"])))
    context.set_trailing_metadata((("trailing", sent["word"]),))
    return b"%d" % int(context.time_remaining() or 0)


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "Hold": grpc.unary_unary_rpc_method_handler(hold),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=[("grpc.max_receive_message_length", 1 << 24)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(None)

"""WebSockets over HTTP/2 (RFC 8441) through the proxy, by the packages `h2` and `wsproto`: `websocket_h2_client.py PORT HOST
[CA]`. The server is websocket_server.py.

Prints `ok NAME` for each part; several WebSockets share one connection.
"""

import os
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
from wsproto import events as ws
from wsproto.connection import Connection, ConnectionType

port, host = int(sys.argv[1]), sys.argv[2]
ca = sys.argv[3] if len(sys.argv) > 3 else None


def same(found, wanted):
    if found != wanted:
        raise SystemExit(f"{str(found)[:200]!r} is not {str(wanted)[:200]!r}")


class Wire:
    """One connection of HTTP/2, and what came on each of its streams."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        if ca:
            context = ssl.create_default_context(cafile=ca)
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
            same(self.socket.selected_alpn_protocol(), "h2")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.streams = {}
        self.flush()
        # Extended CONNECT may be used once the server has offered it.
        while not self.h2.remote_settings.enable_connect_protocol:
            self.turn()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def turn(self):
        data = self.socket.recv(65536)
        if not data:
            raise SystemExit("the connection is closed")
        for event in self.h2.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", None))
            if isinstance(event, h2.events.ResponseReceived):
                stream.status = dict(event.headers)[":status"]
            elif isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.data:
                    stream.framing.receive_data(event.data)
                    stream.events.extend(stream.framing.events())
            elif isinstance(event, h2.events.StreamEnded):
                stream.ended = True
            elif isinstance(event, h2.events.StreamReset):
                # NO_ERROR: nothing more is wanted of us (RFC 9113, 8.1).
                same(event.error_code, 0)
                stream.ended = True
            elif isinstance(event, h2.events.ConnectionTerminated):
                raise SystemExit(f"GOAWAY {event.error_code}")
        self.flush()


class Stream:
    def __init__(self, wire, path, protocol="websocket"):
        self.wire, self.framing, self.events = wire, Connection(ConnectionType.CLIENT), []
        self.status, self.ended = None, False
        self.id = wire.h2.get_next_available_stream_id()
        wire.streams[self.id] = self
        head = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https" if ca else "http"),
                (":path", path), (":authority", host), ("sec-websocket-version", "13"),
                ("sec-websocket-protocol", "chat")]
        wire.h2.send_headers(self.id, head)
        wire.flush()
        while self.status is None:
            wire.turn()

    def send(self, event):
        data = self.framing.send(event)
        while data:
            room = min(self.wire.h2.local_flow_control_window(self.id), self.wire.h2.max_outbound_frame_size)
            if room:
                self.wire.h2.send_data(self.id, data[:room])
                data = data[room:]
                self.wire.flush()
            else:
                self.wire.turn()

    def event(self):
        while not self.events:
            if self.ended:
                raise SystemExit("the stream is over")
            self.wire.turn()
        return self.events.pop(0)

    def message(self):
        parts = []
        while True:
            event = self.event()
            if isinstance(event, ws.Ping):
                self.send(event.response())
                continue
            if not isinstance(event, (ws.TextMessage, ws.BytesMessage)):
                raise SystemExit(f"no message: {event}")
            parts.append(event.data)
            if event.message_finished:
                return (b"" if isinstance(event, ws.BytesMessage) else "").join(map(type(parts[0]), parts))

    def end(self):
        """The server's half of a close: its frame, then the end of the stream."""
        self.wire.h2.end_stream(self.id)
        self.wire.flush()
        while not self.ended:
            self.wire.turn()


wire = Wire()
echo = Stream(wire, "/echo")
same(echo.status, "200")
for text in ["", "a", "grüße"]:
    echo.send(ws.TextMessage(text))
    same(echo.message(), text)
print("ok text")
for size in [0, 1, 1000, 1 << 20]:
    data = os.urandom(size)
    echo.send(ws.BytesMessage(data))
    same(echo.message(), data)
print("ok 1 MiB")
echo.send(ws.TextMessage("one ", message_finished=False))
echo.send(ws.TextMessage("two", message_finished=True))
same(echo.message(), "one two")
print("ok fragments")
echo.send(ws.Ping(b"there?"))
same(echo.event(), ws.Pong(b"there?"))
print("ok ping")
others = [Stream(wire, "/echo") for _ in range(20)]
for number, other in enumerate(others):
    other.send(ws.TextMessage(str(number)))
same([other.message() for other in others], [str(number) for number in range(20)])
for other in others:
    other.send(ws.CloseConnection(1000))
    same(other.event().code, 1000)
    other.end()
print("ok 20 on one connection")
echo.send(ws.CloseConnection(4001, "that is all"))
closed = echo.event()
same((closed.code, closed.reason), (4001, "that is all"))
echo.end()
print("ok close by the client")
bye = Stream(wire, "/bye")
bye.send(ws.TextMessage("hello"))
closed = bye.event()
same((closed.code, closed.reason), (4002, "enough"))
bye.send(closed.response())
bye.end()
print("ok close by the server")
same(Stream(wire, "/echo", protocol="gopher").status[0], "4")
print("ok refusal")

"""What the proxies are given to do.

`by`: who makes the load: `wrk` (HTTP/1.1), `h2load` (HTTP/2), `websocket` (websocket.py) or `idle` (idle.py).
`check`: how it is known before measuring that a peer does the work (verify.py).
`needs`: what `peers.Setup` is told beyond the defaults. `instances`: answers (default), sink, grpc or websocket.
"""

from peers import instances
from peers.setup import RULE_HEADER, RULE_VALUE

BODY = 16384
GRPC_FIELDS = [("content-type", "application/grpc"), ("te", "trailers")]

WORK = {
    "small": {"title": "Small answers, 64 connections"},
    "rules": {"title": "50 regular expressions that do not match, then a split", "needs": {"rules": True},
              "headers": [(RULE_HEADER, RULE_VALUE)]},
    "64k": {"title": "Answers of 64 KiB", "path": "/file/64k"},
    "1m": {"title": "Answers of 1 MiB", "path": "/file/1m"},
    "upload": {"title": "Uploads of 16 KiB", "path": instances.UPLOAD, "body": b"u" * BODY, "instances": "sink"},
    "close": {"title": "A connection a request", "headers": [("Connection", "close")]},
    "1000": {"title": "Small answers, 1,000 connections", "connections": 1000},
    "tls": {"title": "Small answers over TLS, 64 connections kept", "needs": {"tls": True}},
    "handshake": {"title": "A TLS handshake a request, none resumed", "needs": {"tls": True},
                  "headers": [("Connection", "close")]},
    "h2": {"title": "HTTP/2 over TLS, 16 connections of 32 streams", "by": "h2load", "connections": 16, "streams": 32,
           "needs": {"tls": True, "http2": True}},
    "h2-upload": {"title": "HTTP/2 over TLS: uploads of 16 KiB, 16 connections of 8 streams", "by": "h2load",
                  "connections": 16, "streams": 8, "needs": {"tls": True, "http2": True}, "path": instances.UPLOAD,
                  "body": b"u" * BODY, "instances": "sink"},
    "grpc": {"title": "gRPC, unary, in the clear, 16 connections of 32 streams", "by": "h2load", "connections": 16,
             "streams": 32, "needs": {"http2": True, "grpc": True}, "path": instances.GRPC, "headers": GRPC_FIELDS,
             "body": instances.MESSAGE, "answer": instances.MESSAGE, "instances": "grpc"},
    "websocket": {"title": "WebSocket: 64 connections, each message echoed", "by": "websocket", "unit": "message",
                  "needs": {"websocket": True}, "instances": "websocket"},
    "idle": {"title": "10,000 idle connections, plain", "by": "idle", "kind": "plain"},
    "idle-tls": {"title": "10,000 idle connections, TLS", "by": "idle", "kind": "tls", "needs": {"tls": True}},
    "idle-h2": {"title": "10,000 idle connections, HTTP/2 in the clear", "by": "idle", "kind": "h2", "needs": {"http2": True}},
}
DEFAULTS = {"by": "wrk", "connections": 64, "path": "/", "headers": [], "body": b"", "answer": None, "instances": "answers",
            "needs": {}, "unit": "request"}
WORK = {key: DEFAULTS | given for key, given in WORK.items()}

RATED = ["small", "rules"]          # measured again at a fixed rate

"""What every proxy of a measurement is told, whoever it is."""

import pathlib
import typing

CONNECTIONS = 14000         # limits are raised out of the way, not part of the measurement
PATTERNS = [f"[a-z]+-{n:03}-[0-9a-f]+" for n in range(1, 51)]
RULE_HEADER, RULE_VALUE = "x-customer", "customer-900-4f3a2b"
NAME = "compare.test"       # of the certificate, beside 127.0.0.1


class Setup(typing.NamedTuple):
    """One proxy: where it listens, what it speaks there, and the instances behind it."""

    folder: pathlib.Path            # its own files
    port: int
    admin: int
    ports: list                     # of the four instances
    certificate: pathlib.Path       # cert.pem and key.pem are in this folder
    rules: bool = False             # 50 expressions and a split, instead of everything to everybody
    tls: bool = False               # TLS 1.3 only, from clients
    http2: bool = False             # from clients; without TLS with prior knowledge
    grpc: bool = False              # HTTP/2 in the clear to the instances, too
    websocket: bool = False         # WebSockets are let through

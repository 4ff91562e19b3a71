"""What stands behind the proxies: an nginx for answers and gRPC, a HAProxy that takes uploads."""

from . import nginx

UPLOAD = "/upload"
GRPC = "/compare.Echo/Unary"
ANSWER = "pointsman " * 6 + "ok"
# A gRPC message of 64 bytes: not compressed, its length, and what any protobuf parser takes for field 1.
MESSAGE = b"\x00\x00\x00\x00\x40" + b"\x0a\x3e" + b"p" * 62


def answers(ports, grpc_ports, folder):
    """An nginx: a fixed text, files from memory, an echo of what a proxy adds; with HTTP/2 a gRPC method, too."""
    listens = lambda some, how: "\n".join(f"    listen 127.0.0.1:{port} backlog=4096{how};" for port in some)  # noqa: E731
    echo = "$http_x_forwarded_for|$http_x_forwarded_proto|$http_x_forwarded_host|$http_x_request_id|$http_connection"
    # As bytes would be written: nginx takes any but a quote, a dollar, a backslash and a line's end.
    message = MESSAGE.replace(b"\x0a\x3e", b"\\n\x3e").decode("latin-1")
    return f"""
daemon off; worker_processes 1; pid {folder}/backend.pid; error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
  {nginx.paths(folder)}
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 600s;
  open_file_cache max=16 inactive=300s; http2_max_concurrent_streams 1000;
  server {{
{listens(ports, "")}
    default_type text/plain;
    location = /echo {{ return 200 "{echo}"; }}
    location /file/ {{ alias {folder}/files/; }}
    location / {{ return 200 "{ANSWER}"; }}
  }}
  server {{
{listens(grpc_ports, " http2")}
    default_type application/grpc;
    location = /echo {{ return 200 "{echo}"; }}
    location = {GRPC} {{ add_trailer grpc-status 0; return 200 "{message}"; }}
  }}
}}
"""


def sink(ports):
    """Takes uploads: a HAProxy that reads the whole body and then answers itself."""
    binds = "\n".join(f"  bind 127.0.0.1:{port} backlog 4096" for port in ports)
    return f"""
global
  nbthread 1
  maxconn 4096
  tune.bufsize 65536
defaults
  mode http
  timeout client 300s
  timeout http-request 10s
  timeout http-keep-alive 300s
frontend sink
{binds}
  http-request wait-for-body time 10s at-least 60000 if METH_POST
  http-request return status 200 content-type text/plain string ok
"""

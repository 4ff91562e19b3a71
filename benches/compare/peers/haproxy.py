"""HAProxy as a proxy."""

from .setup import CONNECTIONS, PATTERNS, RULE_HEADER


def command(program, setup):
    file = setup.folder / "haproxy.conf"
    file.write_text(configuration(setup))
    return [program, "-db", "-f", str(file)]


def configuration(setup):
    return f"""
global
  nbthread 1
  maxconn {CONNECTIONS}
  no strict-limits
  tune.maxaccept 64
  tune.bufsize 32768
  tune.pool-high-fd-ratio 90
  tune.pool-low-fd-ratio 80
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  balance roundrobin
  http-reuse always
  option http-keep-alive
  option forwardfor
  timeout connect 1s
  timeout client 600s
  timeout server 60s
  timeout tunnel 600s
  timeout http-keep-alive 600s
  default-server pool-max-conn -1 pool-purge-delay 60s
frontend in
  bind 127.0.0.1:{setup.port} backlog 4096{_speaks(setup)}
  http-request set-header X-Forwarded-Proto {"https" if setup.tls else "http"}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Request-Id %[uuid()] unless {{ req.hdr(x-request-id) -m found }}
{_backends(setup)}
"""


def _speaks(setup):
    if setup.tls:
        # HAProxy reads certificate and key from one file.
        both = setup.folder / "both.pem"
        both.write_text("".join((setup.certificate / name).read_text() for name in ("cert.pem", "key.pem")))
        return f" ssl crt {both} alpn {'h2,http/1.1' if setup.http2 else 'http/1.1'}"
    return " proto h2" if setup.http2 else ""


def _backends(setup):
    speaks = " proto h2" if setup.grpc else ""
    server = lambda some: "\n".join(f"  server s{p} 127.0.0.1:{p}{speaks}" for p in some)  # noqa: E731
    if not setup.rules:
        return f"  default_backend all\nbackend all\n{server(setup.ports)}"
    tried = "\n".join(f"  use_backend gray if {{ req.hdr({RULE_HEADER}) -m reg ^{p}$ }}" for p in PATTERNS)
    return f"""{tried}
  use_backend gray if {{ rand(100) lt 5 }}
  default_backend stable
backend gray
{server(setup.ports[:2])}
backend stable
{server(setup.ports[2:])}"""

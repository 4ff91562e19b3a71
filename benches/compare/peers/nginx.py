"""nginx as a proxy."""

from .setup import CONNECTIONS, PATTERNS, RULE_HEADER


def command(program, setup):
    file = setup.folder / "nginx.conf"
    file.write_text(configuration(setup))
    return [program, "-p", str(setup.folder), "-e", "stderr", "-c", str(file)]


def configuration(setup):
    return f"""
daemon off; worker_processes 1; pid {setup.folder}/nginx.pid; error_log stderr crit; pcre_jit on;
events {{ worker_connections {2 * CONNECTIONS}; multi_accept on; accept_mutex off; }}
http {{
  {paths(setup.folder)}
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 600s; server_tokens off;
  client_body_buffer_size 64k; client_max_body_size 0;
  proxy_buffers 16 32k; proxy_busy_buffers_size 128k; proxy_buffer_size 16k; proxy_max_temp_file_size 0;
  map $http_x_request_id $rid {{ default $http_x_request_id; "" $request_id; }}
{_upstreams(setup)}
  server {{
    listen 127.0.0.1:{setup.port} backlog=4096{" ssl" if setup.tls else ""}{" http2" if setup.http2 else ""};
{_certificate(setup)}
    location / {{
{_pass(setup)}
    }}
  }}
}}
"""


def paths(folder):
    """Where nginx puts temporary files; it insists on having the folders."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)


def _upstreams(setup):
    servers = lambda some: " ".join(f"server 127.0.0.1:{p} max_fails=0;" for p in some)  # noqa: E731
    keep = "keepalive 1024; keepalive_requests 100000000; keepalive_timeout 300s;"
    if not setup.rules:
        return f"  upstream all {{ {servers(setup.ports)} {keep} }}"
    patterns = "\n".join(f'    "~^{pattern}$" gray;' for pattern in PATTERNS)
    return f"""
  upstream gray {{ {servers(setup.ports[:2])} {keep} }}
  upstream stable {{ {servers(setup.ports[2:])} {keep} }}
  split_clients "$request_id" $arm {{ 5% gray; * stable; }}
  map $http_{RULE_HEADER.replace('-', '_')} $chosen {{
    default $arm;
{patterns}
  }}
"""


def _certificate(setup):
    if not setup.tls:
        return ""
    return (f"    ssl_certificate {setup.certificate}/cert.pem; ssl_certificate_key {setup.certificate}/key.pem;"
            " ssl_protocols TLSv1.3;")


def _pass(setup):
    to = "$chosen" if setup.rules else "all"
    kind = "grpc" if setup.grpc else "proxy"
    lines = [f"grpc_pass grpc://{to};"] if setup.grpc else [f"proxy_pass http://{to};", "proxy_http_version 1.1;"]
    if setup.websocket:
        lines += ["proxy_set_header Upgrade $http_upgrade;", 'proxy_set_header Connection "upgrade";']
    elif not setup.grpc:
        lines.append('proxy_set_header Connection "";')
    lines += [f"{kind}_set_header {field};" for field in (
        "Host $http_host", "X-Forwarded-For $proxy_add_x_forwarded_for", "X-Forwarded-Proto $scheme",
        "X-Forwarded-Host $http_host", "X-Request-Id $rid")]
    return "\n".join(f"      {line}" for line in lines)

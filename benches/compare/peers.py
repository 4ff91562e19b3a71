"""The proxies' configurations, each as its experts would tune it for this work, and the instances behind them.

`plain` sends everything to four instances. `rules` tries 50 regular expressions on a header, none of which matches, and
then splits 5 % to two of the instances and 95 % to the other two.
"""

import json

CONNECTIONS = 4096          # limits are raised out of the way, not part of the measurement
PATTERNS = [f"[a-z]+-{n:03}-[0-9a-f]+" for n in range(1, 51)]
RULE_HEADER, RULE_VALUE = "x-customer", "customer-900-4f3a2b"
UPLOAD = "/upload"


def backend(ports, folder):
    """The instances: one nginx on four ports; a fixed text, files from memory, and an echo of what a proxy adds."""
    listens = "\n".join(f"    listen 127.0.0.1:{port} backlog={CONNECTIONS};" for port in ports)
    echo = "$http_x_forwarded_for|$http_x_forwarded_proto|$http_x_forwarded_host|$http_x_request_id|$http_connection"
    return f"""
daemon off; worker_processes 1; pid {folder}/backend.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  {_nginx_paths(folder)}
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 300s;
  open_file_cache max=16 inactive=300s;
  server {{
{listens}
    default_type text/plain;
    location = /echo {{ return 200 "{echo}"; }}
    location /file/ {{ alias {folder}/files/; }}
    location / {{ return 200 "{'pointsman ' * 6}ok"; }}
  }}
}}
"""


def sink(ports):
    """Takes uploads: a HAProxy that reads the whole body and then answers itself."""
    binds = "\n".join(f"  bind 127.0.0.1:{port} backlog {CONNECTIONS}" for port in ports)
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


def nginx(port, ports, rules, folder):
    servers = lambda some: " ".join(f"server 127.0.0.1:{p} max_fails=0;" for p in some)  # noqa: E731
    keep = "keepalive 1024; keepalive_requests 100000000; keepalive_timeout 300s;"
    patterns = "\n".join(f'    "~^{pattern}$" gray;' for pattern in PATTERNS)
    routing = f"""
  upstream gray {{ {servers(ports[:2])} {keep} }}
  upstream stable {{ {servers(ports[2:])} {keep} }}
  split_clients "$request_id" $arm {{ 5% gray; * stable; }}
  map $http_{RULE_HEADER.replace('-', '_')} $chosen {{
    default $arm;
{patterns}
  }}
""" if rules else f"  upstream all {{ {servers(ports)} {keep} }}"
    return f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit; pcre_jit on;
events {{ worker_connections 8192; multi_accept on; accept_mutex off; }}
http {{
  {_nginx_paths(folder)}
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 300s; server_tokens off;
  client_body_buffer_size 64k; client_max_body_size 0;
  proxy_buffers 16 32k; proxy_busy_buffers_size 128k; proxy_buffer_size 16k; proxy_max_temp_file_size 0;
  map $http_x_request_id $rid {{ default $http_x_request_id; "" $request_id; }}
{routing}
  server {{
    listen 127.0.0.1:{port} backlog={CONNECTIONS};
    location / {{
      proxy_pass http://{"$chosen" if rules else "all"};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Request-Id $rid;
    }}
  }}
}}
"""


def _nginx_paths(folder):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)


def haproxy(port, ports, rules, folder):
    server = lambda some: "\n".join(f"  server s{p} 127.0.0.1:{p}" for p in some)  # noqa: E731
    choose = "  default_backend all"
    backends = f"backend all\n{server(ports)}"
    if rules:
        tried = "\n".join(f"  use_backend gray if {{ req.hdr({RULE_HEADER}) -m reg ^{p}$ }}" for p in PATTERNS)
        choose = f"{tried}\n  use_backend gray if {{ rand(100) lt 5 }}\n  default_backend stable"
        backends = f"backend gray\n{server(ports[:2])}\nbackend stable\n{server(ports[2:])}"
    return f"""
global
  nbthread 1
  maxconn 4096
  tune.maxaccept 64
  tune.bufsize 32768
  tune.pool-high-fd-ratio 90
  tune.pool-low-fd-ratio 80
defaults
  mode http
  balance roundrobin
  http-reuse always
  option http-keep-alive
  option forwardfor
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 300s
  default-server pool-max-conn -1 pool-purge-delay 60s
frontend in
  bind 127.0.0.1:{port} backlog {CONNECTIONS}
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Request-Id %[uuid()] unless {{ req.hdr(x-request-id) -m found }}
{choose}
{backends}
"""


def envoy(port, ports, rules, folder):
    groups = {"gray": ports[:2], "stable": ports[2:]} if rules else {"all": ports}
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "all", "timeout": "0s"}}]
    if rules:
        header = lambda p: {"name": RULE_HEADER, "string_match": {"safe_regex": {"regex": p}}}  # noqa: E731
        routes = [{"match": {"prefix": "/", "headers": [header(p)]}, "route": {"cluster": "gray", "timeout": "0s"}} for p in PATTERNS]
        weighted = {"clusters": [{"name": "gray", "weight": 5}, {"name": "stable", "weight": 95}]}
        routes.append({"match": {"prefix": "/"}, "route": {"weighted_clusters": weighted, "timeout": "0s"}})
    type_url = "type.googleapis.com/envoy.extensions."
    manager = {
        "@type": type_url + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": "HTTP1", "use_remote_address": True, "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH", "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": routes,
            "request_headers_to_add": [{"header": {"key": "x-forwarded-host", "value": "%REQ(:authority)%"}}],
        }]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": type_url + "filters.http.router.v3.Router", "suppress_envoy_headers": True, "dynamic_stats": True}}],
    }
    roof = {name: 1_000_000 for name in ("max_connections", "max_pending_requests", "max_requests", "max_retries")}
    address = lambda p: {"socket_address": {"address": "127.0.0.1", "port_value": p}}  # noqa: E731
    cluster = lambda name, some: {  # noqa: E731
        "name": name, "type": "STATIC", "connect_timeout": "1s", "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [roof]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(p)}} for p in some]}]},
    }
    return json.dumps({"static_resources": {
        "listeners": [{"name": "in", "address": address(port), "tcp_backlog_size": CONNECTIONS,
                       "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}],
        "clusters": [cluster(name, some) for name, some in groups.items()],
    }}, indent=1)


def pointsman_catalog(ports):
    lines = ["services:", "  web:"]
    for n, port in enumerate(ports):
        version = "1.3" if n < 2 else "1.2"
        lines += [f"    - id: web-{n + 1}", "      address: 127.0.0.1", f"      port: {port}",
                  f'      labels: {{version: "{version}", env: prod, region: eu}}']
    return "\n".join(lines) + "\n"


def pointsman_rules(rules):
    if not rules:
        return "service: web\npools:\n  all: env == prod\nrules:\n  - name: all\n    to: [all]\n"
    out = ["service: web", "pools:", "  gray: version == 1.3 and env == prod", "  stable: version == 1.2 and env == prod", "rules:"]
    for n, pattern in enumerate(PATTERNS, 1):
        out += [f"  - name: tester-{n:02}", f"    when: 'header.{RULE_HEADER} matches \"{pattern}\"'", "    to: [gray, stable]"]
    out += ["  - name: ramp", "    split: {gray: 5%, stable: 95%}", "    else: 503"]
    return "\n".join(out) + "\n"


def command(name, program, cpu, port, admin, ports, rules, folder):
    """Writes a peer's files into `folder` and gives the command that runs it, pinned to one core, in the foreground."""
    pin = ["taskset", "-c", str(cpu), program]
    if name == "pointsman":
        (folder / "rules").mkdir(exist_ok=True)
        (folder / "rules" / "web.yaml").write_text(pointsman_rules(rules))
        (folder / "catalog.yaml").write_text(pointsman_catalog(ports))
        return pin + ["run", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}",
                      "--catalog", str(folder / "catalog.yaml"), "--rules", str(folder / "rules"), "--workers", "1"]
    file = folder / f"{name}.conf"
    file.write_text({"nginx": nginx, "haproxy": haproxy, "envoy": envoy}[name](port, ports, rules, folder))
    if name == "nginx":
        return pin + ["-p", str(folder), "-e", "stderr", "-c", str(file)]
    if name == "haproxy":
        return pin + ["-db", "-f", str(file)]
    return pin + ["-c", str(file.rename(folder / "envoy.json")), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]

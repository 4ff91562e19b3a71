"""Envoy as a proxy."""

import json

from .setup import PATTERNS, RULE_HEADER

TYPE = "type.googleapis.com/envoy.extensions."


def command(program, setup):
    file = setup.folder / "envoy.json"
    file.write_text(configuration(setup))
    return [program, "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def configuration(setup):
    groups = {"gray": setup.ports[:2], "stable": setup.ports[2:]} if setup.rules else {"all": setup.ports}
    chain = {"filters": [{"name": "http", "typed_config": _manager(setup)}]}
    if setup.tls:
        chain["transport_socket"] = {"name": "tls", "typed_config": _tls(setup)}
    return json.dumps({"static_resources": {
        "listeners": [{"name": "in", "address": _address(setup.port), "tcp_backlog_size": 4096, "filter_chains": [chain]}],
        "clusters": [_cluster(setup, name, some) for name, some in groups.items()],
    }}, indent=1)


def _manager(setup):
    manager = {
        "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": "HTTP2" if setup.http2 else "HTTP1", "use_remote_address": True,
        "preserve_external_request_id": True, "server_header_transformation": "PASS_THROUGH", "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": _routes(setup),
            "request_headers_to_add": [{"header": {"key": "x-forwarded-host", "value": "%REQ(:authority)%"}}],
        }]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": TYPE + "filters.http.router.v3.Router", "suppress_envoy_headers": True, "dynamic_stats": True}}],
    }
    if setup.websocket:
        manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    return manager


def _routes(setup):
    if not setup.rules:
        return [{"match": {"prefix": "/"}, "route": {"cluster": "all", "timeout": "0s"}}]
    header = lambda p: {"name": RULE_HEADER, "string_match": {"safe_regex": {"regex": p}}}  # noqa: E731
    routes = [{"match": {"prefix": "/", "headers": [header(p)]}, "route": {"cluster": "gray", "timeout": "0s"}} for p in PATTERNS]
    weighted = {"clusters": [{"name": "gray", "weight": 5}, {"name": "stable", "weight": 95}]}
    return routes + [{"match": {"prefix": "/"}, "route": {"weighted_clusters": weighted, "timeout": "0s"}}]


def _tls(setup):
    files = {"certificate_chain": {"filename": f"{setup.certificate}/cert.pem"}, "private_key": {"filename": f"{setup.certificate}/key.pem"}}
    return {
        "@type": TYPE + "transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [files], "alpn_protocols": ["h2"] if setup.http2 else ["http/1.1"],
        },
    }


def _cluster(setup, name, ports):
    roof = {limit: 1_000_000 for limit in ("max_connections", "max_pending_requests", "max_requests", "max_retries")}
    cluster = {
        "name": name, "type": "STATIC", "connect_timeout": "1s", "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [roof]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(p)}} for p in ports]}]},
    }
    if setup.grpc:
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": TYPE + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    return cluster


def _address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

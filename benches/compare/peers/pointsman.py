"""pointsman, with what it has on when nobody says anything: rules, ejection, metrics."""

import json

from .setup import PATTERNS, RULE_HEADER


def command(program, setup):
    (setup.folder / "rules").mkdir(exist_ok=True)
    (setup.folder / "rules" / "web.yaml").write_text(rules(setup))
    (setup.folder / "catalog.yaml").write_text(catalog(setup))
    file = setup.folder / "pointsman.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(settings(setup), indent=1))
    return [program, "run", "--config", str(file), "--workers", "1"]


def settings(setup):
    listen = {"address": f"127.0.0.1:{setup.port}"}
    if setup.tls:
        listen["tls"] = {"cert": f"{setup.certificate}/cert.pem", "key": f"{setup.certificate}/key.pem", "versions": ["1.3"]}
    return {
        "listen": [listen], "admin": {"address": f"127.0.0.1:{setup.admin}"},
        "catalog": {"file": str(setup.folder / "catalog.yaml")}, "rules": str(setup.folder / "rules"),
        "limits": {"keep_alive": "10m"},
        # Told to end it ends, and writes down what it counted if it was built for that (train.py).
        "drain": {"delay": "0s", "timeout": "1s"},
    }


def catalog(setup):
    lines = ["services:", "  web:"]
    for n, port in enumerate(setup.ports):
        version = "1.3" if n < 2 else "1.2"
        speaks = ", proto: grpc" if setup.grpc else ""
        lines += [f"    - id: web-{n + 1}", "      address: 127.0.0.1", f"      port: {port}",
                  f'      labels: {{version: "{version}", env: prod, region: eu{speaks}}}']
    return "\n".join(lines) + "\n"


def rules(setup):
    if not setup.rules:
        return "service: web\npools:\n  all: env == prod\nrules:\n  - name: all\n    to: [all]\n"
    out = ["service: web", "pools:", "  gray: version == 1.3 and env == prod", "  stable: version == 1.2 and env == prod", "rules:"]
    for n, pattern in enumerate(PATTERNS, 1):
        out += [f"  - name: tester-{n:02}", f"    when: 'header.{RULE_HEADER} matches \"{pattern}\"'", "    to: [gray, stable]"]
    out += ["  - name: ramp", "    split: {gray: 5%, stable: 95%}", "    else: 503"]
    return "\n".join(out) + "\n"

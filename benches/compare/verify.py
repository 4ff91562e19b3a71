"""That a peer does the work, before anything is measured: a good answer, the headers that all add, the same TLS."""

import base64
import hashlib
import http.client
import ipaddress
import re
import ssl
import subprocess
import time

import websocket

READY_SECONDS = 5


class Wrong(RuntimeError):
    """A peer does not do what the others do."""


def check(bench, name, port, work):
    """Raises `Wrong`. A peer may listen a moment before it knows its instances: 503 is asked again for a while."""
    needs = work["needs"]
    url = f"http{'s' if needs.get('tls') else ''}://127.0.0.1:{port}"
    ask = _http2 if needs.get("http2") else _http1
    if work["by"] == "websocket":
        _websocket(name, port)
        return
    end = time.monotonic() + READY_SECONDS
    while True:
        status, body, text = ask(bench, url, work["path"], work["headers"], work["body"])
        if status == 200:
            break
        if status != 503 or time.monotonic() > end:
            raise Wrong(f"{name} answered {status} to {work['path']}\n{text[-1500:]}")
        time.sleep(0.05)
    if work["answer"] is not None and body != work["answer"]:
        raise Wrong(f"{name}: the answer is {body!r}, not {work['answer']!r}")
    if needs.get("grpc") and not re.search(r"recv \(stream_id=\d+\) grpc-status: 0\n", text):
        raise Wrong(f"{name}: no grpc-status 0 in\n{text[-1500:]}")
    if needs.get("tls"):
        _tls(bench, name, port, "h2" if needs.get("http2") else "http/1.1")
    if work["instances"] != "sink":
        _adds(name, url, ask(bench, url, "/echo", [h for h in work["headers"] if h[0] != "Connection"], b"")[1])


def _adds(name, url, echo):
    """The fields that everybody adds, as an instance saw them."""
    try:
        client, proto, host, ident, connection = echo.decode().split("|")
    except ValueError:
        raise Wrong(f"{name} answered /echo with {echo!r}") from None
    # Not always 127.0.0.1: Envoy writes the machine's own address for a client on loopback.
    try:
        ipaddress.ip_address(client)
        good = f"{proto}://{host}" == url and len(ident) >= 16 and "close" not in connection
    except ValueError:
        good = False
    if not good:
        raise Wrong(f"{name} does not do the same work as the others; an instance saw {echo.decode()}")


def _http1(bench, url, path, headers, body):
    host = url.split("//")[1]
    if url.startswith("https"):
        context = ssl.create_default_context(cafile=bench.certificate / "cert.pem")
        connection = http.client.HTTPSConnection(host, timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection(host, timeout=5)
    try:
        connection.request("POST" if body else "GET", path, body or None, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(), str(answer.headers)
    finally:
        connection.close()


def _http2(bench, url, path, headers, body):
    """By nghttp, once for the frames and once for the body, which it would mix."""
    command = [bench.programs["nghttp"], "-y", "-t5"] + [f"-H{name}: {value}" for name, value in headers]
    if body:
        file = bench.folder / "sent"
        file.write_bytes(body)
        command += ["-d", str(file)]
    run = lambda more: subprocess.run(command + more + [url + path], capture_output=True, timeout=20, env=bench.load_environment)  # noqa: E731
    frames = run(["-n", "-v"])
    text = (frames.stdout + frames.stderr).decode(errors="replace")
    status = re.search(r"recv \(stream_id=\d+\) :status: (\d+)", text)
    return int(status[1]) if status else 0, run([]).stdout, text


def _tls(bench, name, port, alpn):
    """TLS 1.3, the one cipher suite and curve that the load offers, an ECDSA certificate, and this protocol."""
    command = [bench.programs["openssl"], "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", alpn, "-verify_ip", "127.0.0.1",
               "-CAfile", str(bench.certificate / "cert.pem"), "-verify_return_error"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, env=bench.load_environment)
    text = (done.stdout + done.stderr).decode(errors="replace")
    wanted = ["New, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256", "Server Temp Key: X25519", "Peer signature type: ECDSA",
              "Verify return code: 0", f"ALPN protocol: {alpn}"]
    missing = [line for line in wanted if line not in text]
    if missing:
        raise Wrong(f"{name} has another TLS than the others, without {missing}:\n{text[-1500:]}")


def _websocket(name, port):
    """An upgrade, and an echo of a message."""
    end = time.monotonic() + READY_SECONDS
    while True:
        stream, head = websocket.connected(port)
        with stream:
            if head.startswith(b"HTTP/1.1 101 "):
                break
            if not head.startswith(b"HTTP/1.1 503 ") or time.monotonic() > end:
                raise Wrong(f"{name} does not upgrade: {head!r}")
        time.sleep(0.05)
    accept = base64.b64encode(hashlib.sha1(websocket.KEY + websocket.GUID).digest())
    if accept not in head:
        raise Wrong(f"{name}: not the instance's upgrade: {head!r}")
    stream, _ = websocket.connected(port)
    with stream:
        stream.sendall(websocket.FRAME)
        echo = b""
        while len(echo) < len(websocket.ECHO) and (piece := stream.recv(4096)):
            echo += piece
        if echo != websocket.ECHO:
            raise Wrong(f"{name}: a message came back as {echo!r}")



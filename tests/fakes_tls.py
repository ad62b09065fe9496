"""Real TLS messages, made by OpenSSL in memory, and what puts messages and records together by hand."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def certificate(directory: Path, name: str = "shop.example") -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    return cert, key


def client_context(newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Of a client that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    return context


def real_hello(name: str | None = "shop.example", newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """What OpenSSL says first."""
    outgoing = ssl.MemoryBIO()
    tls = client_context(newest).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, data)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def hello_body(*extensions: bytes, session: bytes = b"") -> bytes:
    """The body of a ClientHello; without extensions it has no list of them."""
    rest = vector(2, b"".join(extensions)) if extensions else b""
    return b"\3\3" + bytes(32) + vector(1, session) + vector(2, b"\x13\x01\xc0\x2f") + vector(1, b"\0") + rest


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + vector(3, body)


def records(data: bytes, size: int = 16384, kind: int = 22) -> bytes:
    """``data`` in records of ``size`` bytes each."""
    return b"".join(bytes([kind, 3, 1]) + vector(2, data[at : at + size]) for at in range(0, len(data), size))


def hello(*extensions: bytes, session: bytes = b"", size: int = 16384) -> bytes:
    """A ClientHello in records of that size."""
    return records(message(1, hello_body(*extensions, session=session)), size)

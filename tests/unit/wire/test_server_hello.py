from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from fakes_tls import certificate, client_context, extension, message, records, vector

from cachelb.wire.server_hello import SERVER_BYTES, SessionReader


def server_hello(session: bytes, *extensions: bytes) -> bytes:
    rest = vector(2, b"".join(extensions)) if extensions else b""
    return message(2, b"\3\3" + bytes(32) + vector(1, session) + b"\xc0\x2f\0" + rest)


def ticket(value: bytes) -> bytes:
    return message(4, bytes(4) + vector(2, value))


def read(data: bytes, size: int = 1 << 20) -> SessionReader:
    reader = SessionReader()
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
    return reader


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_the_id_and_the_ticket_are_found(size: int):
    reader = read(records(server_hello(b"i" * 32) + message(11, b"c" * 5000) + ticket(b"secret")) + b"\x14\3\3\0\1\1", size)
    assert (reader.session, reader.ticket, reader.done) == (b"i" * 32, b"secret", True)


def test_every_truncation_waits_for_more():
    data = records(server_hello(b"i" * 32) + ticket(b"secret"))
    assert [size for size in range(len(data)) if read(data[:size]).done] == []


@pytest.mark.parametrize(
    "data",
    [
        records(server_hello(b"i" * 32, extension(43, b"\3\4"))),
        records(server_hello(b"i" * 32)[:10] + b"\xff" * 90),
        b"220 ready\r\n",
        b"\x15\3\3\0\2\2\x28",
        records(ticket(b"x")),
    ],
    ids=["TLS 1.3", "malformed", "no TLS", "alert", "no hello"],
)
def test_where_nothing_can_be_learned_it_is_done(data: bytes):
    for size in (1, 1000):
        reader = read(data, size)
        assert (reader.session, reader.ticket, reader.done) == (b"", b"", True)


def test_a_ticket_that_cannot_be_read_leaves_the_id():
    reader = read(records(server_hello(b"i") + message(4, bytes(4) + b"\xff\xff")))
    assert (reader.session, reader.ticket, reader.done) == (b"i", b"", True)


def test_it_does_not_look_for_ever():
    reader = read(records(server_hello(b"i") + message(11, b"c" * 60000) + message(11, b"c" * 60000)))
    assert reader.done
    assert SERVER_BYTES < 120_000


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_openssls_session_is_found_where_it_is_in_the_clear(newest: ssl.TLSVersion, tmp_path: Path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    incoming = ssl.MemoryBIO()
    client = client_context(newest).wrap_bio(incoming, to_server)
    reader = SessionReader()
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
        data = to_client.read()
        reader.feed(data)
        incoming.write(data)
    assert client.version() == ("TLSv1.2" if newest is ssl.TLSVersion.TLSv1_2 else "TLSv1.3")
    assert reader.done
    assert bool(reader.ticket) == (newest is ssl.TLSVersion.TLSv1_2)

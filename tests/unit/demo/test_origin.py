"""The origin over real loopback sockets, in this process."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from cachelb.demo.origin import BLOCK_BYTES, Origin, body, body_blocks


def talk(request: bytes) -> tuple[str, dict[str, str], bytes, Origin]:
    """Send `request`, close our half, read to the end: (status line, fields, rest, the origin)."""

    async def exchange() -> tuple[bytes, Origin]:
        origin = Origin()
        await origin.start("127.0.0.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", origin.port)
        writer.write(request)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await origin.stop()
        return answer, origin

    answer, origin = asyncio.run(exchange())
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, rest, origin


def get(
    path: str, *fields: str, version: str = "1.1", method: str = "GET"
) -> tuple[str, dict[str, str], bytes, Origin]:
    lines = "".join(field + "\r\n" for field in ("Host: a", *fields))
    return talk(f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode())


@pytest.mark.parametrize("size", [0, 1, 8, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_bodies_have_their_size_and_differ_by_name_and_block(size: int):
    content = body("/a", size)
    assert len(content) == size
    assert content == body("/a", size)
    assert size < 100 or content != body("/b", size)
    blocks = list(body_blocks("/a", size))
    assert len(set(blocks)) == len(blocks)


@pytest.mark.parametrize(
    ("path", "cache_control"),
    [("/static/1", "public, max-age=3600"), ("/private/1", "private"), ("/nostore/1", "no-store"), ("/any/1", None)],
)
def test_each_kind_carries_its_cache_control(path: str, cache_control: str | None):
    status, fields, content, origin = get(path)
    assert status.startswith("HTTP/1.1 200")
    assert fields.get("cache-control") == cache_control
    assert content == body(path, 1000)
    assert origin.counts == {f"GET {path}": 1}


def test_any_answers_as_asked():
    status, fields, content, _ = get("/any/1?status=404&cc=max-age%3D60&vary=Accept&size=5")
    assert (status.split()[1], fields["cache-control"], fields["vary"], content) == (
        "404",
        "max-age=60",
        "Accept",
        body("/any/1", 5),
    )


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_has_no_length(status: int):
    _, fields, content, _ = get(f"/any/1?status={status}")
    assert "content-length" not in fields
    assert content == b""


def test_an_unknown_path_is_404():
    assert get("/nothing")[0].startswith("HTTP/1.1 404")


def test_large_is_streamed_with_its_length():
    _, fields, content, _ = get("/large?size=200000")
    assert fields["content-length"] == "200000"
    assert content == body("/large", 200_000)


def test_chunked_has_extensions_and_a_trailer_with_the_sum():
    _, fields, content, _ = get("/chunked?size=70000")
    assert fields["transfer-encoding"] == "chunked"
    expected = body("/chunked", 70_000)
    first = b"10000;n=1\r\n" + expected[:65536] + b"\r\n"
    assert content.startswith(first)
    assert content.endswith(f"0\r\nX-Sum: {hashlib.sha256(expected).hexdigest()}\r\n\r\n".encode())


def test_chunked_becomes_close_delimited_for_http_1_0():
    _, fields, content, _ = get("/chunked?size=10", version="1.0")
    assert "transfer-encoding" not in fields
    assert content == body("/chunked", 10)


def test_close_delimited_has_no_length_and_closes():
    _, fields, content, _ = get("/close?size=70000")
    assert fields["connection"] == "close"
    assert "content-length" not in fields
    assert content == body("/close", 70_000)


def test_head_has_the_fields_and_no_body():
    _, fields, content, _ = get("/large?size=9", method="HEAD")
    assert fields["content-length"] == "9"
    assert content == b""


@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: 1\r\n\r\n",
    ],
)
def test_uploads_are_measured(framed: bytes):
    _, _, content, _ = talk(b"POST /upload HTTP/1.1\r\nHost: a\r\n" + framed)
    assert json.loads(content) == {"length": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}


def test_expect_is_answered_before_the_body():
    status, _, rest, _ = talk(
        b"POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    )
    assert status == "HTTP/1.1 100 Continue"
    assert rest.startswith(b"HTTP/1.1 200")


def test_echo_returns_the_head_as_it_came():
    request = b"GET /echo HTTP/1.1\r\nHost: a\r\nx-Odd:  Case \r\n\r\n"
    assert talk(request)[2] == request


def test_upgrade_echoes_until_the_end():
    status, _, rest, _ = talk(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nping")
    assert (status.split()[1], rest) == ("101", b"ping")


def test_one_connection_serves_several_requests():
    pipelined = b"GET /static/1?size=3 HTTP/1.1\r\nHost: a\r\n\r\nGET /static/2?size=3 HTTP/1.1\r\nHost: a\r\n\r\n"
    _, _, rest, origin = talk(pipelined)
    assert rest.startswith(body("/static/1", 3) + b"HTTP/1.1 200")
    assert rest.endswith(body("/static/2", 3))
    assert origin.counts.total() == 2


def test_counts_are_told_and_not_counted():
    _, _, rest, _ = talk(b"GET /nostore/1?size=0 HTTP/1.1\r\n\r\nGET /counts HTTP/1.1\r\n\r\n")
    assert json.loads(rest.rpartition(b"\r\n\r\n")[2]) == {"GET /nostore/1?size=0": 1}


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1", b"x\r\n\r\n", b"POST /upload HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_nonsense_ends_the_connection_quietly(nonsense: bytes):
    assert talk(nonsense)[0] == ""

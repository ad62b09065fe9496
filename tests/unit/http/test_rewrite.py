"""Edits to request fields, and loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cachelb.http.fields import request_fields
from cachelb.http.rewrite import EditPolicy, is_loop, request_edit

VIA = b"1.1 lb (cachelb)"
APPEND = EditPolicy("append", VIA)
OFF = EditPolicy("off", b"")


def block(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


def edited(policy: EditPolicy, *lines: bytes, client: bytes = b"192.0.2.1") -> list[bytes]:
    """The lines that go to the node."""
    data = block(*lines)
    pre, post = request_edit(request_fields(data), policy)
    whole = pre + client + post if post else pre
    if not whole:
        return []
    assert whole.endswith(b"\r\n")
    assert b"\r\n\r\n" not in whole
    return whole.split(b"\r\n")[:-1]


def test_nothing_in_gives_our_lines_only() -> None:
    assert edited(APPEND) == [b"Via: " + VIA, b"X-Forwarded-For: 192.0.2.1"]
    assert edited(OFF) == []


def test_end_to_end_fields_stay_as_they_are_and_in_order() -> None:
    lines = [b"Accept:*/*", b"cookie:  a=b ", b"X-Odd:\t", b"Content-Length: 5", b"Via: 1.0 x", b"Referer:\thttp://b/"]
    assert edited(OFF, *lines) == lines


def test_hop_by_hop_fields_go_listed_or_not() -> None:
    assert edited(
        OFF,
        b"Host: a",
        b"A: 1",
        b"connection: X-Gone, keep-alive",
        b"X-GONE: x",
        b"Keep-Alive: 5",
        b"TE: trailers",
        b"Proxy-Connection: keep-alive",
        b"Upgrade: h2c",
        b"Trailer: x",
        b"B: 2",
        b"Connection: c",
        b"C: 3",
    ) == [b"A: 1", b"B: 2"]


@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.title, bytes.swapcase])
@pytest.mark.parametrize(
    "name", [b"Host", b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Upgrade", b"Trailer"]
)
def test_each_hop_by_hop_field_goes_in_any_spelling(name: bytes, change: Callable[[bytes], bytes]) -> None:
    assert edited(OFF, b"A: b", change(name) + b": x", b"C: d") == [b"A: b", b"C: d"]


def test_connection_cannot_take_away_fields_that_frame_route_or_identify() -> None:
    lines = [
        b"Content-Length: 5",
        b"Cookie: a",
        b"Authorization: b",
        b"Cache-Control: no-store",
        b"X-Forwarded-For: 10.0.0.1",
    ]
    listed = b"Connection: " + b", ".join(line.partition(b":")[0] for line in lines)
    assert edited(OFF, listed, *lines) == lines


def test_transfer_encoding_is_written_anew_and_the_trailer_announced() -> None:
    assert edited(OFF, b"transfer-encoding:CHUNKED", b"Trailer: X") == [b"Trailer: X", b"Transfer-Encoding: chunked"]


def test_our_via_follows_those_of_others() -> None:
    assert edited(EditPolicy("off", b"1.0 lb"), b"Via: 1.1 a", b"A: b") == [b"Via: 1.1 a", b"A: b", b"Via: 1.0 lb"]


@pytest.mark.parametrize(
    ("mode", "result"),
    [
        ("append", [b"A: b", b"X-Forwarded-For: 10.0.0.1, unknown, ::1, 192.0.2.1"]),
        ("set", [b"A: b", b"X-Forwarded-For: 192.0.2.1"]),
        ("delete", [b"A: b"]),
        ("off", [b"A: b", b"X-Forwarded-For: 10.0.0.1, unknown, ::1"]),
    ],
)
def test_the_modes_of_forwarded_for(mode: str, result: list[bytes]) -> None:
    lines = [b"X-Forwarded-For: 10.0.0.1, unknown", b"A: b", b"x-forwarded-for:::1"]
    assert edited(EditPolicy(mode, b""), *lines) == result


@pytest.mark.parametrize("mode", ["append", "set", "delete"])
def test_an_empty_forwarded_for_does_not_stay(mode: str) -> None:
    expected = [] if mode == "delete" else [b"X-Forwarded-For: 192.0.2.1"]
    assert edited(EditPolicy(mode, b""), b"X-Forwarded-For:") == expected


def test_only_the_last_entries_of_forwarded_for_are_kept() -> None:
    lines = [b"X-Forwarded-For: " + b", ".join(b"10.0.0.%d" % n for n in range(100))]
    policy = EditPolicy("append", b"", forwarded_for_hops=2)
    assert edited(policy, *lines) == [b"X-Forwarded-For: 10.0.0.98, 10.0.0.99, 192.0.2.1"]
    assert edited(EditPolicy("append", b""), *lines)[0].count(b",") == 64


def test_upgrade_passes_only_where_the_policy_and_connection_say_so() -> None:
    lines = [b"Connection: upgrade, http2-settings", b"Upgrade: websocket", b"HTTP2-Settings: x"]
    assert edited(EditPolicy("off", b"", upgrade=True), *lines) == [b"Upgrade: websocket"]
    assert edited(OFF, *lines) == []
    assert edited(EditPolicy("off", b"", upgrade=True), b"Upgrade: websocket") == []


def test_the_proxy_credentials_go_to_nodes_only() -> None:
    line = b"Proxy-Authorization: Basic x"
    assert edited(OFF, line) == [line]
    assert edited(EditPolicy("off", b"", to_origin=True), line, b"Authorization: y") == [b"Authorization: y"]


def test_what_is_written_anew_comes_last() -> None:
    policy = EditPolicy("off", VIA, decrement_max_forwards=True)
    lines = [b"Max-Forwards: 0", b"eXpect: 100-Continue", b"A: b"]
    assert edited(policy, *lines) == [b"A: b", b"Expect: 100-continue", b"Max-Forwards: 0", b"Via: " + VIA]


def test_expect_is_not_sent_on_for_http_1_0() -> None:
    assert edited(EditPolicy("off", b"", minor=0), b"Expect: 100-continue", b"A: b") == [b"A: b"]


def test_max_forwards_is_lowered_where_asked() -> None:
    assert edited(EditPolicy("off", b"", decrement_max_forwards=True), b"Max-Forwards: 10") == [b"Max-Forwards: 9"]
    assert edited(OFF, b"Max-Forwards: 10") == [b"Max-Forwards: 10"]


@pytest.mark.parametrize(
    ("via", "loop"),
    [
        ([], False),
        ([b"1.1 lb"], True),
        ([b"1.0 a, HTTP/1.1 LB (x), 1.1 b"], True),
        ([b"1.1 a", b"1.1 lb (cachelb)"], True),
        ([b"1.1 lb2"], False),
        ([b"1.1 xlb, 1.1 lb:80"], False),
        ([b"1.1 a (lb)"], False),
        ([b"1.1 a (open, 1.1 lb"], True),
        ([b"lb"], False),
        ([b"lb lb"], True),
        ([b", ,"], False),
    ],
)
def test_a_loop_is_our_own_name_in_via(via: list[bytes], loop: bool) -> None:
    fields = request_fields(block(*[b"Via: " + value for value in via]))
    assert is_loop(fields, b"lb") is loop
    assert is_loop(fields, b"Lb") is loop

"""The programs, in a small interpreter of classic BPF and in the kernel, against the answerers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from icp import htcp, sieve
from icp.answer import Answerer
from icp.answer_htcp import HtcpAnswerer
from icp.htcp import HtcpOpcode, HtcpQuery, HtcpReply, Specifier
from icp.packet import Opcode, pack_query, pack_reply

VECTORS = Path(__file__).parents[2] / "vectors"
URL = b"http://a/"
ICP_SEEDS = [path.read_bytes() for path in sorted((VECTORS / "icp").glob("*.bin"))]
HTCP_SEEDS = [
    *(path.read_bytes() for path in sorted((VECTORS / "htcp").glob("*.bin"))),
    htcp.pack_query(HtcpQuery(HtcpOpcode.CLR, 7, Specifier(b"GET", URL))),
    htcp.pack_query(HtcpQuery(HtcpOpcode.TST, 7, Specifier(b"GET", URL, headers=b"A: b\r\n"), minor=0)),
]


def run(program: bytes, payload: bytes) -> bool:
    """Whether the kernel would let a UDP datagram with this payload pass."""
    packet = bytes(8) + payload
    steps = list(struct.iter_unpack("=HBBI", program))
    a = x = at = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code in (0x20, 0x28, 0x30, 0x48):  # load
            start, size = value + (x if code == 0x48 else 0), {0x20: 4, 0x30: 1}.get(code, 2)
            if start < 0 or start + size > len(packet):
                return False
            a = int.from_bytes(packet[start : start + size], "big")
        elif code in (0x15, 0x1D, 0x35, 0x25):  # compare
            at += yes if {0x15: a == value, 0x1D: a == x, 0x35: a >= value, 0x25: a > value}[code] else no
        elif code == 0x06:
            return value > 0
        elif code == 0x07:
            x = a
        else:
            a = {0x80: len(packet), 0x14: (a - value) % (1 << 32), 0x54: a & value, 0x87: x}[code]


def icp_answer(datagram: bytes) -> object:
    return Answerer(lambda url: False, lambda source: True).answer(datagram, "10.0.0.1", 1.0)


def htcp_answer(datagram: bytes) -> object:
    async def clear(url: bytes) -> int:
        return 1

    answer = HtcpAnswerer(lambda url: False, clear, lambda source: True, may_clear=lambda source: True).answer(
        datagram, "10.0.0.1", 1.0
    )
    if hasattr(answer, "close"):
        answer.close()
        return "later"
    return answer


CASES = {"ICP": (sieve.ICP, ICP_SEEDS, icp_answer), "HTCP": (sieve.HTCP, HTCP_SEEDS, htcp_answer)}


def changed(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds with a few bytes overwritten, cut or with a tail, most of them with a length field that fits."""

    def change(seed: bytes, at: int, by: bytes, end: int, tail: bytes) -> bytes:
        return seed[:at] + by + seed[at + len(by) : end] + tail

    return st.builds(
        change,
        st.sampled_from(seeds),
        st.integers(0, 60) | st.integers(0, 12),
        st.binary(max_size=2),
        st.none() | st.integers(0, 80),
        st.binary(max_size=2),
    )


def with_length(data: bytes, at: int) -> bytes:
    return data[:at] + (len(data) & 0xFFFF).to_bytes(2, "big") + data[at + 2 :] if len(data) >= at + 2 else data


@given(st.binary(max_size=40) | changed(ICP_SEEDS), st.booleans())
@example(pack_query(1, URL)[:-1] + bytes(8192), True)
@example(pack_query(1, b""), False)
def test_what_icp_answers_passes(data: bytes, fits: bool):
    data = with_length(data, 2) if fits else data
    if icp_answer(data) is not None:
        assert run(sieve.ICP, data)


@given(st.binary(max_size=40) | changed(HTCP_SEEDS), st.booleans())
def test_what_htcp_answers_passes(data: bytes, fits: bool):
    data = with_length(data, 0) if fits else data
    if fits and len(data) >= 6:
        data = data[:4] + (len(data) - 6 & 0xFFFF).to_bytes(2, "big") + data[6:]
    if htcp_answer(data) is not None:
        assert run(sieve.HTCP, data)


QUERY = pack_query(5, URL)
TST = htcp.pack_query(HtcpQuery(HtcpOpcode.TST, 7, Specifier(b"GET", URL)))
BAD_ICP = {
    "empty": b"",
    "short": QUERY[:19],
    "header only": with_length(QUERY[:19], 2),
    "truncated": QUERY[:-1],
    "longer": QUERY + b"\0",
    "version 1": b"\1\1" + QUERY[2:],
    "version 3": b"\1\3" + QUERY[2:],
    "a reply": pack_reply(Opcode.HIT, 5, URL),
    "unknown opcode": b"\x19" + QUERY[1:],
    "echo": b"\x0a" + QUERY[1:],
    "request number 0": QUERY[:4] + bytes(4) + QUERY[8:],
    "noise": bytes(range(200)),
}
BAD_HTCP = {
    "empty": b"",
    "short": TST[:13],
    "truncated": TST[:-1],
    "longer": TST + b"\0",
    "version 1.0": TST[:2] + b"\1" + TST[3:],
    "version 0.2": TST[:3] + b"\2" + TST[4:],
    "a reply": htcp.pack_reply(HtcpReply(HtcpOpcode.TST, 7, 0)),
    "signed": TST[:-1] + b"\3",
    "other parts": TST[:5] + bytes((TST[5] ^ 1,)) + TST[6:],
    "an opcode nobody has": TST[:6] + b"\x20" + TST[7:],
    "reserved flags": TST[:7] + b"\x82" + TST[8:],
    "too large": with_length(TST + bytes(8200), 0),
}
SORTS = [
    *(("ICP", name, data, False) for name, data in BAD_ICP.items()),
    *(("ICP", f"good {number}", data, True) for number, data in enumerate((QUERY, b"\x0b" + QUERY[1:], QUERY[:-1] + b"x"))),
    *(("HTCP", name, data, False) for name, data in BAD_HTCP.items()),
    *(("HTCP", f"good {number}", data, True) for number, data in enumerate((TST, HTCP_SEEDS[-1], HTCP_SEEDS[-2]))),
]


@pytest.mark.parametrize(("kind", "data", "passes"), [pytest.param(k, d, p, id=f"{k} {n}") for k, n, d, p in SORTS])
def test_what_is_nothing_does_not_pass(kind: str, data: bytes, passes: bool):
    program, _, answer = CASES[kind]
    assert run(program, data) is passes
    assert (answer(data) is not None) is passes


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, Callable[[bytes], bool]]]:
    """A socket, and a function that sends to it and says whether it came through."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind((request.param, 0))
        server.setblocking(False)

        def comes_through(data: bytes) -> bool:
            client.sendto(data, server.getsockname())
            try:
                return server.recv(1 << 16) == data
            except BlockingIOError:
                return False

        yield server, comes_through


@pytest.mark.parametrize("kind", CASES)
def test_the_kernel_does_as_the_interpreter(pair, kind: str):
    server, comes_through = pair
    program, seeds, _ = CASES[kind]
    assert sieve.attach(server, program)
    before = sieve.dropped(server)
    tried = [data for of, _, data, _ in SORTS if of == kind] + seeds
    kept = [data for data in tried if not comes_through(data)]
    assert kept == [data for data in tried if not run(program, data)]
    assert sieve.dropped(server) == before + len(kept)
    sieve.detach(server)
    assert all(comes_through(data) for data in kept)


def test_what_the_kernel_does_not_take_is_told():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert not sieve.attach(sock, bytes(8))
        sieve.detach(sock)
    assert not sieve.attach(sock, sieve.ICP)
    assert sieve.dropped(sock) == 0

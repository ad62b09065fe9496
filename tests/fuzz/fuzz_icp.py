"""Whatever arrives, the answerer gives at most one reply, not longer than what arrived, never one that is answered in turn.

What ``unpack`` takes is packed again bit for bit; what it, ``parse_query`` and ``parse_reply`` refuse is refused by a slow
reader too.  The answerer's short way through sound queries says what the long one says, and many at once get what each would.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

from mutate import EDGES, chance_of, mutate

from icp.answer import Answerer, Outcome
from icp.errors import BadPacket, BadUrl
from icp.packet import Message, Opcode, Query, header_fault, pack, pack_query, parse_query, parse_reply, unpack

VECTORS = Path(__file__).parents[1] / "vectors" / "icp"
SEEDS = [path.read_bytes() for path in sorted(VECTORS.glob("*.bin"))]
NASTY = [
    *(bytes([opcode, 2]) for opcode in (0, 1, 2, 3, 4, 10, 11, 21, 22, 23, 24, 255)),
    *(b"\1\3", b"\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x40\0\0\0", b"http://", b" ", b"\n", b"x" * 9000),
]
OPCODES = [0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 10, 11, 21, 22, 23, 24, 255]
URLS = [
    *(b"http://a/obj", b"http://a/x", b"http://a/none", b"http://127.0.0.9/", b"a:b", b"", b" ", b"http://a/ b", b"/x", b"//obj"),
    *(b"http://a/\0", b"\0", b"http://a/\xff\xfe", b"HTTP://A:80/obj", b"http:", b"1http://a/", b"http://a/\x7f"),
    *(b"http://a/" + b"x" * size for size in (8181, 8182, 8183, 16000, 65000)),
]
TAILS = [b"\0"] * 8 + [b"", b"\0\0", b"\0x", b"x"]
ERR_BYTES = 21  # without a URL: what a query of 20 bytes may get
FRIEND, STRANGER = "10.0.0.1", "192.0.2.1"
HELD_QUERY = pack_query(7, b"http://a/obj")
REPLIES = (Opcode.HIT, Opcode.MISS, Opcode.ERR, Opcode.MISS_NOFETCH, Opcode.DENIED)


def holds(url: bytes) -> bool | None:
    if b"obj" in url:
        return True
    if b"none" in url:
        return None
    if b"//" not in url:
        raise BadUrl("no authority")
    if b"127.0.0.9" in url:
        raise KeyError(url)
    return False


def make(chance: random.Random) -> bytes:
    """A message put together from parts that are sound as a rule, or a captured one with changes."""
    if chance.randrange(2):
        data = mutate(chance, SEEDS, NASTY)
        if chance.random() < 0.8 and len(data) >= 4:  # so that what comes behind the length is reached
            data = data[:2] + (len(data) & 0xFFFF).to_bytes(2, "big") + data[4:]
        return data
    opcode = chance.choice(OPCODES)
    address = chance.randbytes(4) if opcode == 1 else b""
    payload = address[: chance.choice((4, 4, 4, 4, 4, 4, 4, 0, 3))] + chance.choice(URLS) + chance.choice(TAILS)
    length = 20 + len(payload) + chance.choice((0,) * 30 + (-1, 1, -20))
    numbers = [chance.choice(EDGES) if chance.randrange(2) else chance.randrange(1 << 32) for _ in range(4)]
    return struct.pack(">BBHIIII", opcode, chance.choice((2,) * 30 + (0, 1, 3, 255)), max(0, length) & 0xFFFF, *numbers) + payload


def slow(data: bytes) -> Message | None:
    """The well-formed message that this is, found another way."""
    if len(data) < 20 or data[1] != 2 or data[2] * 256 + data[3] != len(data) or data[0] not in (1, 2, 3, 4, 10, 11, 21, 22):
        return None
    words = [int.from_bytes(data[at : at + 4], "big") for at in (4, 8, 12, 16, 20)]
    at = 24 if data[0] == 1 else 20
    url, nul, rest = data[at:].partition(b"\0")
    if not nul or rest or len(url) > 8191 or len(data) <= at:
        return None
    return Message(Opcode(data[0]), words[0], url, words[1], words[2], words[3], words[4] if data[0] == 1 else 0)


def check(data: bytes) -> str:
    said = slow(data)
    word = ""
    try:
        message = unpack(data)
        assert message == said
        assert pack(message) == data
    except BadPacket as problem:
        assert said is None, problem
        assert str(problem)
        word = f"refused {problem.fault.word}"
    is_query = said is not None and said.opcode in (Opcode.QUERY, Opcode.DECHO) and said.reqnum != 0
    try:
        query = parse_query(data)
        assert is_query
        assert said is not None
        assert query == Query(said.reqnum, said.url, said.flags, said.opcode is Opcode.DECHO)
    except BadPacket as problem:
        assert not is_query, problem
        assert header_fault(data) in (None, problem.fault)
        assert problem.reqnum == 0 or problem.fault.is_err_due
    is_reply = said is not None and said.opcode not in (Opcode.QUERY, Opcode.SECHO) and said.reqnum != 0
    try:
        assert parse_reply(data) == said
        assert is_reply
    except BadPacket as problem:
        assert not is_reply, problem
    outcome = check_answer(data, is_query)
    return word or f"{said.opcode.name if said else ''}: {outcome}"


def check_answer(data: bytes, is_query: bool) -> str:
    """The outcomes of two equal datagrams in a row."""
    chance = chance_of(data)
    source = chance.choice((FRIEND, FRIEND, FRIEND, STRANGER))
    serving = chance.random() < 0.8
    answerer, twin, together = (
        Answerer(holds, lambda source: source == FRIEND, denied_budget=1, rtt=rtt) for rtt in (None, lambda url: None, None)
    )
    answerer.serving = twin.serving = together.serving = serving
    replies = [answerer.answer(data, source, 1.0), answerer.answer(data, source, 1.0)]
    assert replies == [twin.answer(data, source, 1.0), twin.answer(data, source, 1.0)]
    assert (answerer.counts, answerer.faults) == (twin.counts, twin.faults)
    assert sum(answerer.counts) - answerer.counts[Outcome.FAILED] == 2
    expected = [*replies, answerer.answer(HELD_QUERY, FRIEND, 1.0)]
    assert together.answer_all([data, data, HELD_QUERY], [source, source, FRIEND], 1.0) == expected
    assert (answerer.counts, answerer.faults) == (together.counts, together.faults)
    return ", ".join(check_reply(answerer, reply, data, source, is_query) for reply in replies)


def check_reply(answerer: Answerer, reply: object, data: bytes, source: str, is_query: bool) -> str:
    """Its outcome."""
    if reply is None:
        assert source == STRANGER or not is_query
        return "silence"
    assert isinstance(reply, bytes)
    assert len(reply) <= max(len(data), ERR_BYTES)
    said = parse_reply(reply)
    assert said.opcode in REPLIES
    assert said.reqnum == int.from_bytes(data[4:8], "big")
    assert (source == STRANGER) == (said.opcode is Opcode.DENIED)
    assert answerer.answer(reply, FRIEND, 1.0) is None
    return said.opcode.name

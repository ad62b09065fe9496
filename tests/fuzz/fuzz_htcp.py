"""Whatever arrives, it is refused with BadPacket or packed again bit for bit, and gets at most one reply, which is shorter.

What the readers refuse is refused by a slow reader too.
"""

from __future__ import annotations

import random
from pathlib import Path

from mutate import EDGES, chance_of, mutate

from icp.answer_htcp import HtcpAnswerer
from icp.errors import BadPacket, BadUrl
from icp.htcp import HtcpOpcode, HtcpReply, pack_query, pack_reply, parse_query, parse_reply

VECTORS = Path(__file__).parents[1] / "vectors" / "htcp"
SEEDS = [path.read_bytes() for path in sorted(VECTORS.glob("*.bin"))]
SEEDS.append(pack_reply(HtcpReply(HtcpOpcode.CLR, 4, 0)))
NASTY = [
    *(bytes([opcode << 4, flags]) for opcode in (0, 1, 4, 5) for flags in (0, 1, 2, 3, 0x40)),
    *(b"\0", b"\0\0", b"\0\1", b"\0\2", b"\0\3GET", b"\xff\xff", b"\xff", b"\0\0\0\0\0\0", b"x" * 9000),
]
STRINGS = [
    *(b"GET", b"HEAD", b"PURGE", b"POST", b"get", b"http://a/obj", b"http://a/x", b"obj", b"", b"1/1", b"\0", b"\xff" * 40),
    *(b"Accept: */*\r\n", b"http://a/bug", b"x" * 8000, b"x" * 8152, b"x" * 8192),
]
FRIEND, STRANGER = "10.0.0.1", "192.0.2.1"


def holds(url: bytes) -> bool:
    if b"//" not in url:
        raise BadUrl("no authority")
    if b"bug" in url:
        raise KeyError(url)
    return b"obj" in url


async def clear(url: bytes) -> int:
    return holds(url)


def sized(text: bytes) -> bytes:
    return (len(text) & 0xFFFF).to_bytes(2, "big") + text


def make(chance: random.Random) -> bytes:
    """A message put together from parts that are sound as a rule, or a captured one with changes."""
    if chance.randrange(2):
        data = mutate(chance, SEEDS, NASTY)
        if chance.random() < 0.8 and 8 <= len(data) < 65536:  # so that what comes behind the lengths is reached
            data = len(data).to_bytes(2, "big") + data[2:4] + (len(data) - 6).to_bytes(2, "big") + data[6:]
        return data
    opcode, flags = chance.choice((1,) * 5 + (4,) * 7 + (0, 2, 3, 5, 15)), chance.choice((0, 1, 1, 2, 2, 2, 2, 3, 4, 0x40))
    wanted = 3 if flags & 1 else 4
    strings = [sized(chance.choice(STRINGS)) for _ in range(chance.choice((*[wanted] * 9, 0, 1, 5)))]
    if strings and chance.randrange(8) == 0:
        at = chance.randrange(len(strings))
        strings[at] = (chance.choice(EDGES) & 0xFFFF).to_bytes(2, "big") + strings[at][2:]
    reason = chance.choice((b"\0\0", b"\0\1", b"\xff\xff")) if opcode == 4 and not flags & 1 else b""
    response = chance.choice((0, 1, 2, 15)) if flags & 1 else chance.choice((0,) * 20 + (1,))
    body = bytes([opcode << 4 | response, flags]) + chance.randbytes(4) + reason + b"".join(strings)
    auth = chance.choice((b"\0\2",) * 30 + (b"", b"\0\0", b"\0\3x", b"\0\2\0"))
    parts = (len(body) + 2 & 0xFFFF).to_bytes(2, "big") + body + auth
    version = bytes([chance.choice((0,) * 30 + (1,)), chance.choice((0,) * 5 + (1,) * 20 + (2, 255))])
    return (len(parts) + 4 & 0xFFFF).to_bytes(2, "big") + version + parts


def slow(data: bytes) -> str:
    """ "query", "reply" or "", found another way."""
    size = len(data)
    if not 14 <= size <= 8192 or data[:2] != size.to_bytes(2, "big") or data[2] or data[3] > 1:
        return ""
    if data[4:6] != (size - 6).to_bytes(2, "big") or data[-2:] != b"\0\2" or data[7] > 3 or data[6] >> 4 > 4:
        return ""
    opcode, rest = data[6] >> 4, data[12:-2]
    if data[7] & 1:
        return "reply" if not rest or (opcode == 1 and is_cut(rest, 3)) else ""
    if opcode == 4:
        opcode, rest = 1, rest[2:] if len(rest) >= 2 else b""
    return "query" if opcode == 1 and not data[6] & 15 and is_cut(rest, 4) else ""


def is_cut(rest: bytes, count: int) -> bool:
    """Whether `rest` is `count` strings with their lengths in front, and nothing else."""
    for _ in range(count):
        size = int.from_bytes(rest[:2], "big") + 2
        if len(rest) < max(2, size):
            return False
        rest = rest[size:]
    return not rest


def check(data: bytes) -> str:
    said = slow(data)
    word = "refused"
    try:
        query = parse_query(data)
        assert said == "query"
        assert pack_query(query) == data
        word = f"{query.opcode.name} query"
    except BadPacket as problem:
        assert said != "query", problem
        assert str(problem)
        word = f"refused {problem.fault.word}"
    try:
        reply = parse_reply(data)
        assert said == "reply"
        assert pack_reply(reply) == data
        word = f"{reply.opcode.name} reply"
    except BadPacket as problem:
        assert said != "reply", problem
        assert str(problem)
    return f"{word}: {check_answer(data, said == 'query')}" if said else word


def check_answer(data: bytes, is_query: bool) -> str:
    """What its sender is told."""
    chance = chance_of(data)
    source, clearer = chance.choice((FRIEND, FRIEND, FRIEND, STRANGER)), chance.choice((FRIEND, FRIEND, ""))
    answerer = HtcpAnswerer(holds, clear, lambda source: source == FRIEND, may_clear=lambda source: source == clearer)
    answerer.serving = chance.random() < 0.8
    reply = answerer.answer(data, source, 1.0)
    if reply is not None and not isinstance(reply, bytes):
        try:
            reply.send(None)
            raise AssertionError("nothing here waits")
        except StopIteration as end:
            reply = end.value
    counts = answerer.counters()
    assert sum(number for name, number in counts.items() if name not in ("failed", *BAD)) == 1
    if reply is None:
        return "silence"
    assert isinstance(reply, bytes)
    assert is_query
    assert source == FRIEND
    assert len(reply) < len(data)
    said = parse_reply(reply)
    assert said.msg_id == int.from_bytes(data[8:12], "big")
    assert said.opcode is HtcpOpcode.TST or clearer == FRIEND
    assert answerer.answer(reply, FRIEND, 1.0) is None
    return str(said.response)


BAD = {f"bad_{word}" for word in HtcpAnswerer(holds, None, lambda source: True).faults}

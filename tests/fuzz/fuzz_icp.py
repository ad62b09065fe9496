"""Whatever arrives, the answerer gives at most one reply, not longer than what arrived, never one that is answered in turn.

What ``unpack`` takes is packed again bit for bit; what it refuses is refused by a slow reader too.

python tests/fuzz/fuzz_icp.py [SECONDS [SEED]]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from mutate import mutate, run

from icp.answer import Answerer
from icp.errors import BadPacket, BadUrl
from icp.packet import Opcode, pack, pack_query, parse_query, parse_reply, unpack

VECTORS = Path(__file__).parents[1] / "vectors" / "icp"
SEEDS = [path.read_bytes() for path in sorted(VECTORS.glob("*.bin"))]
NASTY = [
    *(bytes([opcode, 2]) for opcode in (0, 1, 2, 3, 4, 10, 11, 21, 22, 23, 24, 255)),
    *(b"\1\3", b"\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x40\0\0\0", b"http://", b" ", b"\n", b"x" * 9000),
]
ERR_BYTES = 21  # without a URL: what a query of 20 bytes may get
SOURCES = ("10.0.0.1", "192.0.2.1")


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


def some_bytes(chance: random.Random) -> bytes:
    """Half of them with a length field that fits, so that what comes behind it is reached."""
    data = mutate(chance, SEEDS, NASTY)
    if chance.random() < 0.6 and len(data) >= 4:
        data = data[:2] + (len(data) & 0xFFFF).to_bytes(2, "big") + data[4:]
    return data


def slow(data: bytes) -> bool:
    """Whether this is a well-formed message, said another way."""
    if len(data) < 20 or data[1] != 2 or data[2] * 256 + data[3] != len(data):
        return False
    if data[0] not in (1, 2, 3, 4, 10, 11, 21, 22):
        return False
    payload = data[24:] if data[0] == 1 else data[20:]
    return payload.count(b"\0") == 1 and payload.endswith(b"\0") and len(payload) <= 8192 and (data[0] != 1 or len(data) > 24)


def check(chance: random.Random) -> None:
    data = some_bytes(chance)
    try:
        message = unpack(data)
    except BadPacket as problem:
        message = None
        str(problem)
    assert (message is not None) == slow(data), data
    assert message is None or pack(message) == data
    for parse in (parse_query, parse_reply):
        try:
            parse(data)
        except BadPacket as problem:
            str(problem)
    check_answer(chance, data)


def check_answer(chance: random.Random, data: bytes) -> None:
    answerer = Answerer(holds, lambda source: source == SOURCES[0], denied_budget=1)
    answerer.serving = chance.random() < 0.8
    source = chance.choice(SOURCES)
    for _ in range(2):
        reply = answerer.answer(data, source, 1.0)
        if reply is None:
            continue
        assert isinstance(reply, bytes)
        assert len(reply) <= max(len(data), ERR_BYTES), (data, reply)
        assert parse_reply(reply).opcode in (Opcode.HIT, Opcode.MISS, Opcode.ERR, Opcode.MISS_NOFETCH, Opcode.DENIED)
        assert parse_reply(reply).reqnum == int.from_bytes(data[4:8], "big")
        assert answerer.answer(reply, SOURCES[0], 1.0) is None, (data, reply)
    counts = answerer.counters()
    assert not any(count < 0 for count in counts.values())


def main(seconds: float, seed: int = 0) -> int:
    assert holds(parse_query(pack_query(1, b"http://a/obj")).url)
    return run(seconds, check, seed)


if __name__ == "__main__":
    print(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, int(sys.argv[2]) if len(sys.argv) > 2 else 0), "datagrams")

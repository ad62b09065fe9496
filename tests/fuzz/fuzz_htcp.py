"""Whatever arrives, it is refused with BadPacket or packed again bit for bit, and gets at most one reply, which is shorter.

python tests/fuzz/fuzz_htcp.py [SECONDS [SEED]]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from mutate import mutate, run

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


def holds(url: bytes) -> bool:
    if b"//" not in url:
        raise BadUrl("no authority")
    return b"obj" in url


async def clear(url: bytes) -> int:
    return holds(url)


def some_bytes(chance: random.Random) -> bytes:
    """Most of them with length fields that fit, so that what comes behind them is reached."""
    data = mutate(chance, SEEDS, NASTY)
    size = len(data)
    if chance.random() < 0.8 and 8 <= size < 65536:
        data = size.to_bytes(2, "big") + data[2:4] + (size - 6).to_bytes(2, "big") + data[6:]
    return data


def read(data: bytes) -> bool:
    """Whether one of the readers takes it; then it is packed again bit for bit."""
    taken = 0
    try:
        assert pack_query(parse_query(data)) == data
        taken += 1
    except BadPacket as problem:
        str(problem)
    try:
        assert pack_reply(parse_reply(data)) == data
        taken += 1
    except BadPacket as problem:
        str(problem)
    assert taken < 2, data
    return bool(taken)


def check(chance: random.Random) -> None:
    data = some_bytes(chance)
    read(data)
    answerer = HtcpAnswerer(holds, clear, lambda source: True, may_clear=lambda source: True)
    reply = answerer.answer(data, "10.0.0.1", 1.0)
    if reply is not None and not isinstance(reply, bytes):
        try:
            reply.send(None)
            raise AssertionError("nothing here waits")
        except StopIteration as end:
            reply = end.value
    if reply is not None:
        assert len(reply) < len(data), (data, reply)
        parse_reply(reply)
        assert answerer.answer(reply, "10.0.0.1", 1.0) is None


def main(seconds: float, seed: int = 0) -> int:
    return run(seconds, check, seed)


if __name__ == "__main__":
    print(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, int(sys.argv[2]) if len(sys.argv) > 2 else 0), "datagrams")

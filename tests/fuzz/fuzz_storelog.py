"""Whatever a datagram contains, each of its lines is one event or one count, and the same alone as among others.

python tests/fuzz/fuzz_storelog.py [SECONDS [SEED]]
"""

from __future__ import annotations

import random
import sys

from mutate import mutate, run

from cachelb.cluster.holdings import Holdings, Source
from cachelb.cluster.storelog import LINES_LIMIT, Event, Heuristic, StoreLog, What, apply

KEY = b"7F7F7A4F1B1F1CB79AAE1A82378AAB50"
LINES = [
    b"1795234877.944 SWAPOUT 00 00000000 %b  200 1795234877        -1 1795238477 a/b 1000/1000 GET http://a/static/1\n" % KEY,
    b"1795234877.944 RELEASE 00 00000000 %b  200 1795234877         0        -1 unknown -1/-110 GET http://a/1\n" % KEY,
    b"1795234878.008 RELEASE 00 00000005 %b   ?         ?         ?         ? ?/? ?/? ? ?\n" % KEY,
    b"1795234878.955 RELEASE -1 FFFFFFFF 05000000000000000F58000000000000  404 1795234878 0 -1 unknown 0/0 PURGE http://a/1\n",
    b"1795234878.955 RELEASE -1 FFFFFFFF 1700000000000000EA5F000000000000  304 1795234878 1 1795238477 a/b -1/0 GET http://a/1\n",
    b"1795234878.955 RELEASE 00 00000014 1C00000000000000EA5F000000000000  200 1795234878 -1 1795238477 a/b 9/9 GET http://a/1\n",
    b"1795234893.214 SO_FAIL -1 FFFFFFFF %b  200 1795234893 -1 -1283980106 a/b 100000/-158 GET http://a/2\n" % KEY,
]
SEEDS = [*LINES, b"".join(LINES), LINES[0] * 3, b"\n" * (LINES_LIMIT + 3)]
NASTY = [
    b"\n", b"\r\n", b"\0", b" ", b"  ", b"\t", b"?", b"-", b"-1", b"0", b"99999999999", b"-2147483649",
    b"4294967296", KEY, KEY[1:],
    b"SWAPOUT", b"RELEASE", b"HEAD", b"GET", b"304", b"\xd9\xa3", b"\xff" * 9, b"/", b".", b"00000000", b"1" * 40, b"a" * 300,
]  # fmt: skip


def check(chance: random.Random) -> None:
    data = mutate(chance, SEEDS, NASTY)
    heuristic = chance.choice((None, Heuristic(), Heuristic(100, 1 << 40)))
    log = StoreLog(heuristic)
    events = log.read(data)
    lines = data.split(b"\n")
    expected = min(len(lines) - 1, LINES_LIMIT) + (len(lines) > LINES_LIMIT + 1 or lines[-1] != b"")
    assert sum(log.counts.values()) == expected, data
    assert len(events) == sum(log.counts[what.value] for what in What), data
    for event in events:
        assert isinstance(event, Event)
        assert len(event.key) == 16, data
        assert 0 <= event.expires < 1 << 32, data
    alone = StoreLog(heuristic)
    one_by_one = [event for line in lines[:-1][:LINES_LIMIT] for event in alone.read(line + b"\n")]
    assert one_by_one == events, data
    apply(events, HOLDINGS, chance.randrange(3))
    assert HOLDINGS.count() <= HOLDINGS.keys_limit, data


HOLDINGS = Holdings(keys_limit=20)
HOLDINGS.add(bytes.fromhex(KEY.decode()), 0, 0, Source.SEEN)


def main(seconds: float, seed: int = 0) -> int:
    return run(seconds, check, seed)


if __name__ == "__main__":
    print(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, int(sys.argv[2]) if len(sys.argv) > 2 else 0), "datagrams")

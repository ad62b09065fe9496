"""Whatever a datagram contains, each of its lines is one event or one count, and the same alone as among others.

What Squid's own printf() could have written is understood, and means what a slow reader finds in it.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from mutate import chance_of, mutate

from cachelb.cluster.holdings import Holdings, Source
from cachelb.cluster.storelog import LINES_LIMIT, Event, StoreLog, What, apply
from cachelb.http.freshness import Heuristic
from digest import store_key

KEY = b"7F7F7A4F1B1F1CB79AAE1A82378AAB50"
CAPTURED = (Path(__file__).parents[1] / "vectors" / "storelog" / "squid57.txt").read_bytes().splitlines(keepends=True)
LINES = [
    b"1795234877.944 SWAPOUT 00 00000000 %b  200 1795234877        -1 1795238477 a/b 1000/1000 GET http://a/static/1\n" % KEY,
    b"1795234877.944 RELEASE 00 00000000 %b  200 1795234877         0        -1 unknown -1/-110 GET http://a/1\n" % KEY,
    b"1795234878.008 RELEASE 00 00000005 %b   ?         ?         ?         ? ?/? ?/? ? ?\n" % KEY,
    b"1795234878.955 RELEASE -1 FFFFFFFF 05000000000000000F58000000000000  404 1795234878 0 -1 unknown 0/0 PURGE http://a/1\n",
    b"1795234878.955 RELEASE -1 FFFFFFFF 1700000000000000EA5F000000000000  304 1795234878 1 1795238477 a/b -1/0 GET http://a/1\n",
    b"1795234878.955 RELEASE 00 00000014 1C00000000000000EA5F000000000000  200 1795234878 -1 1795238477 a/b 9/9 GET http://a/1\n",
    b"1795234893.214 SO_FAIL -1 FFFFFFFF %b  200 1795234893 -1 -1283980106 a/b 100000/-158 GET http://a/2\n" % KEY,
]
SEEDS = [
    *(line for line in CAPTURED if not line.startswith(b"#")),
    *LINES * 5,
    *[b"".join(LINES), LINES[0] * 3, b"\n" * (LINES_LIMIT + 3)],
]
NASTY = [
    b"\n", b"\r\n", b"\0", b" ", b"  ", b"\t", b"?", b"-", b"-1", b"0", b"99999999999", b"-2147483649",
    b"4294967296", KEY, KEY[1:],
    b"SWAPOUT", b"RELEASE", b"HEAD", b"GET", b"304", b"\xd9\xa3", b"\xff" * 9, b"/", b".", b"00000000", b"1" * 40, b"a" * 300,
]  # fmt: skip
KEYS = [KEY] * 3 + [
    b"05000000000000000F58000000000000", b"1700000000000000EA5F000001000000", b"0" * 32, b"F" * 32,
    b"FFFFFFFFFF000000FFFF3F00FF000000", b"0000000000010000EA5F000000000000", b"17000000000000000000400000000000",
]  # fmt: skip
# seconds: around the time of the log, at the edges of Squid's integers, and nowhere
TIMES = [-1, -1, 0, 1, -2, 1795234877, 1795234878, 1795234877 - 86400, 1795234876 - 86400, 2**31 - 1, -(2**31), 1795238477, -5]
SQUID = b"%9d.%03d %-7s %02d %08X %s %4d %9d %9d %9d %s %d/%d %s %s\n"  # store_log.cc
NOTHING_KNOWN = b"%9d.%03d %-7s %02d %08X %s   ?         ?         ?         ? ?/? ?/? ? ?\n"
WORDS = {b"SWAPOUT", b"RELEASE", b"SO_FAIL", b"CREATE", b"SWAPIN"}
BAD = {"bad_line", "bad_action", "bad_key", "bad_number", "cut", "excess"}


def some_line(chance: random.Random) -> bytes:
    """A line as Squid writes it."""
    disk = chance.choice(((0, 0), (0, 27), (-1, 2**32 - 1), (12, 2**31)))
    action = chance.choice((*[b"SWAPOUT"] * 5, *[b"RELEASE"] * 8, b"SO_FAIL", b"CREATE"))
    head = (chance.choice((1795234877, 1795234878, 10**8, 2**31 - 1)), chance.randrange(1000), action, *disk, chance.choice(KEYS))
    if action == b"RELEASE" and chance.randrange(4) == 0:
        return NOTHING_KNOWN % head
    status = chance.choice((200, 200, 304, 304, 404, 0, 999))
    sizes = chance.choice(((9, 9), (-1, 0), (10**12, -158)))
    method, url = chance.choice((b"GET",) * 5 + (b"HEAD", b"POST", b"NONE")), chance.choice((b"http://a/1", b"a:443", b"\xff"))
    return SQUID % (
        *head,
        status,
        *(chance.choice(TIMES) for _ in range(3)),
        chance.choice((b"a/b", b"unknown")),
        *sizes,
        method,
        url,
    )


def make(chance: random.Random) -> bytes:
    if chance.randrange(2):
        return mutate(chance, SEEDS, NASTY)
    data = b"".join(some_line(chance) for _ in range(chance.choice((1, 1, 1, 2, 5))))
    return mutate(chance, [data], NASTY) if chance.randrange(3) == 0 else data


def as_squid_writes(line: bytes) -> list[bytes]:
    """The words of a line that Squid's printf() makes of them again, or nothing."""
    fields = line.split()
    if len(fields) != 13:
        return []
    try:
        second, milli = map(int, fields[0].split(b"."))
        numbers = [*map(int, fields[5:9])]
        sizes = [*map(int, fields[10].split(b"/"))]
        again = SQUID % (
            second, milli, fields[1], int(fields[2]), int(fields[3], 16), fields[4], *numbers, fields[9], *sizes, *fields[11:]
        )  # fmt: skip
    except (ValueError, TypeError, OverflowError):
        return []
    fits = all(-(2**31) <= number < 2**31 for number in (second, int(fields[2]), *numbers[1:]))
    fits = fits and second >= 10**8 and 0 <= milli < 1000 and -100 < int(fields[2]) < 1000
    fits = fits and bool(re.fullmatch(b"[0-9A-F]{8}", fields[3]))
    fits = fits and all(-(10**15) < size < 10**15 for size in sizes) and -1 <= numbers[0] < 10**4
    fits = fits and bool(re.fullmatch(b"[0-9A-F]{32}", fields[4])) and fields[1] in WORDS
    return fields if fits and again == line + b"\n" else []


def is_private(key: bytes) -> bool:
    """Whether these 16 bytes are a small counter, a process and a worker."""
    parts = [int.from_bytes(part, "little") for part in (key[:8], key[8:12], key[12:])]
    return parts[0] < 2**40 and parts[1] < 2**22 and parts[2] < 256


def meaning(fields: list[bytes]) -> What | str:
    """Of a line that Squid could have written."""
    action, private = fields[1], is_private(bytes.fromhex(fields[4].decode()))
    if action not in (b"SWAPOUT", b"RELEASE"):
        return "action"
    if fields[11] != b"GET":
        return "method"
    if not private:
        return What.STORED if action == b"SWAPOUT" else What.RELEASED
    if action == b"SWAPOUT" or (fields[2] == b"-1" and fields[5] != b"304"):
        return "private"
    return What.RENEWED if fields[5] == b"304" else What.ENDED


def check(data: bytes) -> str:
    heuristic = chance_of(data).choice((None, Heuristic(), Heuristic(100, 1 << 40)))
    log = StoreLog(heuristic)
    events = log.read(data)
    lines = data.split(b"\n")
    expected = min(len(lines) - 1, LINES_LIMIT) + (len(lines) > LINES_LIMIT + 1 or lines[-1] != b"")
    assert sum(log.counts.values()) == expected
    assert len(events) == sum(log.counts[what.value] for what in What)
    for event in events:
        assert isinstance(event, Event)
        assert len(event.key) == 16
        assert 0 <= event.expires < 1 << 32
    alone = StoreLog(heuristic)
    one_by_one = [event for line in lines[:-1][:LINES_LIMIT] for event in alone.read(line + b"\n")]
    assert one_by_one == events
    for line in lines[:-1][:20]:
        check_line(line)
    check_applied(events)
    words = sorted({word for word in log.counts if word not in BAD})
    return ", ".join(words) or f"refused {', '.join(sorted(log.counts)) or 'nothing'}"


def check_line(line: bytes) -> None:
    fields = as_squid_writes(line)
    if not fields:
        return
    log = StoreLog(None)
    event = next(iter(log.read(line + b"\n")), None)
    what = meaning(fields)
    if event is None:
        assert what is What.RENEWED or log.counts[str(what)] == 1, (what, log.counts)
        assert what is not What.RENEWED or log.counts["private"] == 1  # without a time until which
        return
    assert event.what is what
    assert event.key == (store_key(fields[12]) if what in (What.ENDED, What.RENEWED) else bytes.fromhex(fields[4].decode()))
    logged, date, expires = int(fields[0].split(b".")[0]), int(fields[6]), int(fields[8])
    if what is not What.RELEASED and 0 <= logged - 86400 < date <= logged and expires > 0:
        assert event.expires == expires
    if expires == -1 or what is What.RELEASED:
        assert event.expires == 0


def check_applied(events: list[Event]) -> None:
    """The table takes them, and is left as it was found."""
    apply(events, HOLDINGS, 1)
    assert HOLDINGS.count() <= HOLDINGS.keys_limit
    for event in events:
        HOLDINGS.remove(event.key, 1)
    HOLDINGS.add(bytes.fromhex(KEY.decode()), 1, 0, Source.SEEN)


HOLDINGS = Holdings(keys_limit=20)

"""Whatever an answer's head says of its freshness, it is a time of 32 bits or none, the same from memory as read anew.

A date in today's form is what Python reads in it.
"""

from __future__ import annotations

import random
import re
from calendar import timegm
from time import strptime

from mutate import chance_of, mutate

from cachelb.http import freshness
from cachelb.http.freshness import fresh_until, held_until, parse_date, stored_until
from cachelb.http.grammar import split_list

NOW = 1795234877
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
LONG = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
CONTROLS = [
    *(
        "max-age=600",
        "s-maxage=5, max-age=600",
        "max-age=0",
        "no-cache",
        'no-cache="set-cookie"',
        "private",
        "no-store",
        "public",
    ),
    *("must-revalidate", 'max-age="9"', "max-age=99999999999", "max-age=-1", "Max-Age=5", "max-age= 7", "max-age", "s-maxage=x"),
]
NASTY = [
    *(b"\r\n", b",", b" ", b"0", b"-1", b"+1", b"9" * 20, b"GMT", b":", b"24:00:00", b":60", b"31", b"Feb", b"0000", b"1969"),
    *(b"\tVary: *\r\n", b"Vary: a\r\n", b"Age: 5\r\n", b"Pragma: no-cache\r\n", b'"', b"-", b"99", b"\xb2", b"x"),
]
IMF = re.compile(rb"(?:%b), \d\d (?:%b) \d{4} \d\d:\d\d:\d\d GMT" % ("|".join(DAYS).encode(), "|".join(MONTHS).encode()))
FIELD = re.compile(rb"(?im)^(?:date|expires|last-modified):[ \t]*([^\r\n]*)\r$")


def some_date(chance: random.Random) -> str:
    day, month, year = (
        chance.randrange(1, 32),
        chance.choice(MONTHS),
        chance.choice((2026, 1970, 1969, 2038, 2106, 9999, 1)),
    )
    clock = f"{chance.randrange(25):02}:{chance.randrange(61):02}:{chance.choice((0, 7, 59, 60)):02}"
    match chance.randrange(5):
        case 0:
            return f"{chance.choice(LONG)}, {day:02}-{month}-{year % 100:02} {clock} GMT"
        case 1:
            return f"{chance.choice(DAYS)} {month} {day:2} {clock} {year}"
        case 2:
            return chance.choice(("0", "-1", "", "now", "Thu, 01 Jan 1970 00:00:00 GMT", f"{day} {month} {year}"))
        case _:
            return f"{chance.choice(DAYS)}, {day:02} {month} {year:04} {clock} GMT"


def make(chance: random.Random) -> bytes:
    lines = [f"{name}: {some_date(chance)}\r\n" for name in ("Date", "Expires", "Last-Modified") if chance.randrange(3)]
    values = {
        "Cache-Control": chance.choice(CONTROLS),
        "Age": chance.choice(("0", "5", "86500", "-1", "9" * 12, "x")),
        "Vary": chance.choice(("Accept-Encoding", "*", "", "a, *")),
        "Pragma": "no-cache",
        "Content-Length": chance.choice(("0", "5")),
        "Content-Type": chance.choice(("a/b", "multipart/x-mixed-replace; boundary=x")),
    }
    lines += [f"{name}: {value}\r\n" for name, value in values.items() if chance.randrange(4) == 0]
    chance.shuffle(lines)
    head = ("HTTP/1.1 200 OK\r\n" + "".join(lines) + "\r\n").encode()
    return mutate(chance, [head], NASTY) if chance.randrange(3) == 0 else head


def check(data: bytes) -> str:
    for text in FIELD.findall(data):
        check_date(text)
    chance = chance_of(data)
    status = chance.choice((200, 200, 200, 301, 302, 404, 304, 206))
    delay_s = chance.choice((0, 0, 3))
    stored, held = stored_until(status, data, NOW, delay_s), held_until(status, data, NOW)
    assert (stored, held) == (stored_until(status, data, NOW, delay_s), held_until(status, data, NOW))
    freshness._verdicts.clear()
    freshness._dates.clear()
    assert (stored, held) == (stored_until(status, data, NOW, delay_s), held_until(status, data, NOW))
    in_one_pass, by_searching = (
        [value and split_list(value) for value in values] for values in (freshness._picker.pick(data), freshness._values(data))
    )
    assert in_one_pass == by_searching
    assert 0 <= stored < 1 << 32
    assert 0 <= held < 1 << 32
    if not stored:
        return "refused: not stored"
    return "stored, stale at once" if stored <= NOW else "stored"


def check_date(text: bytes) -> None:
    found = parse_date(text)
    assert found == parse_date(text) == freshness._parse_date(text)
    assert -1 <= found < 1 << 40
    if IMF.fullmatch(text):
        try:
            expected = timegm(strptime(text.decode(), "%a, %d %b %Y %H:%M:%S GMT"))
        except ValueError:  # no such day or time: at most the next month's first days
            assert found == -1 or b" 30 " in text or b" 31 " in text or b" 29 " in text
            return
        if int(text[23:25]) < 60:  # no leap seconds
            assert found == (expected if expected >= 0 else -1)
    if found >= 0:
        assert 0 <= fresh_until(NOW, found, -1, found, None) < 1 << 32

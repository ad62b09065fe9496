"""Until when Squid takes an answer for fresh, from the answer's head alone.

Two questions, because Squid answers them differently: an answer that was a miss may be stored now (``stored_until``), one
that was a hit is in the store already (``held_until``).  0 means no, or that the head does not tell.  A time that is past
means: stored, but stale at once; Squid keeps such objects and renews them.  The arithmetic below both (``fresh_until``) is
also that of the store log.

Squid stores 200, 203, 300, 301, 308 and 410 even where nothing says how long they are fresh, unless they are empty; 302
and 307 only where something does.  Where there is a Vary, ICP is about a marker under the URL's key that lives for 100,000
seconds, whatever becomes of the variants; so are we.

Where we differ, knowingly (tests/squid/test_freshness.py):

- Vary: * leaves a marker, too, for which ICP says HIT though no request is ever one.  Here it is not stored.
- max-age without a Date is stale at once for Squid, which then adds a Date to the answer: it cannot be seen from outside.
- refresh_pattern, negative_ttl, ignore-private and the like are taken as Squid has them without configuration.

Times are the wall clock's, in whole seconds, as Squid keeps them; -1 = there is none.

Source: Squid 5.7, StoreEntry::timestampsSet(), HttpReply::hdrExpirationTime(), HttpStateData::reusableReply(),
refresh.cc, HttpHdrCc::parse(), rfc1123.c.  In names and numbers the same up to 7.6.
"""

from __future__ import annotations

import re
from datetime import date as calendar_date
from typing import Final, NamedTuple

from cachelb.http.caching import cacheability
from cachelb.http.grammar import split_list
from cachelb.http.octets import COMPILED, Picker

MINIMUM_EXPIRY_S: Final = 60  # Squid's minimum_expiry_time
VARY_MARKER_S: Final = 100_000
MARGIN_S: Final = 30  # what is not fresh for so long is no hit for ICP (refreshCheckICP)

_DAY_S: Final = 86400
_YEAR_2106: Final = 1 << 32  # what is later is told as this: 32 bits are kept

STORED_STATUSES: Final = frozenset((200, 203, 300, 301, 308, 410))
_STORED_IF_FRESH: Final = frozenset((302, 307))
_HELD: Final = STORED_STATUSES | _STORED_IF_FRESH | {206, 304}

# IMF-fixdate, RFC 850's and asctime's, as loosely as Squid separates their parts, as strictly as it reads their digits.
_date: Final = re.compile(
    rb"[^\d, ][^, ]*+[, ]++(?:"
    rb"(\d{1,2})(?:[, ]++([A-Za-z]{3})[a-z]*+[, ]++|-([A-Za-z]{3})[a-z]*+-)(\d{1,4})[, ]++(\d\d):(\d\d)(?::(\d{1,2}))?"
    rb"|([A-Za-z]{3})[a-z]*+[, ]++(\d{1,2})[, ]++(\d\d):(\d\d)(?::(\d{1,2}))?[, ]++(\d{1,4})"
    rb")(?:[, ]++GMT)?[, ]*+"
).fullmatch
_MONTHS: Final = {name: i for i, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_EPOCH: Final = calendar_date(1970, 1, 1).toordinal()
_MIXED: Final = b"multipart/x-mixed-replace"
_NO_CONTROL: Final = (-1, False, False)
_number: Final = re.compile(rb"[ \t]*+([+-]?\d{1,19}+)(?!\d)").match

# What Cache-Control values and dates mean, by their bytes; emptied when full, as in ``caching``.
_verdicts: Final[dict[bytes, tuple[int, bool, bool]]] = {}
_VERDICTS_MAX: Final = 1024
_VERDICT_BYTES_MAX: Final = 256
_dates: Final[dict[bytes, int]] = {}
_DATES_MAX: Final = 4096
_DATE_BYTES_MAX: Final = 40


class Heuristic(NamedTuple):
    """How long what has no Expires is fresh: part of its age when it was served, at most so long.

    The defaults are those of Squid's ``refresh_pattern . 0 20% 4320``.  What has no Last-Modified either is stale at once.
    """

    percent: int = 20
    limit_s: int = 4320 * 60


USUAL: Final = Heuristic()


def stored_until(status: int, fields: bytes, arrived: int, delay_s: int = 0) -> int:
    """Until when a GET's answer, which was a miss, will be fresh in the store; 0 if Squid does not store it.

    Args:
        fields: the answer's head, or its field lines after a line break; lines end in CRLF.
        arrived: when it arrived.
        delay_s: how many whole seconds the origin took to answer: Squid takes the answer for so much older.
    """
    if status not in _HELD:
        return 0
    head = _Head(fields, arrived, delay_s)
    if head.is_unfit or not (status in STORED_STATUSES or (status in _STORED_IF_FRESH and 0 < head.date < head.expires)):
        return 0
    if head.is_empty and head.until <= arrived + MINIMUM_EXPIRY_S:
        return 0
    return head.marked


def held_until(status: int, fields: bytes, arrived: int) -> int:
    """Until when the object is fresh from which the node made this answer, which was a hit; 0 if that does not show.

    It does not for errors that are kept for a while, and for a 304 without max-age and Expires: this may be the origin's
    own to a node that asked it again.  Args: as for ``stored_until``.
    """
    if status not in _HELD:
        return 0
    head = _Head(fields, arrived, 0)
    return 0 if status == 304 and head.expires < 0 else head.marked


def fresh_until(arrived: int, date: int, modified: int, expires: int, heuristic: Heuristic | None, age: int = 0) -> int:
    """When Squid takes an object for stale; 0 = that cannot be told.

    Args:
        arrived: when the answer arrived.
        date, modified, expires: of the answer; -1 = it had none.
        heuristic: for answers without `expires`; None: 0 is returned for these.
        age: what caches before Squid say, in seconds.
    """
    if expires < 0 and heuristic is None:
        return 0
    return _bounded(_until(served_at(arrived, date, age), date, modified, expires, heuristic or USUAL))


def _until(served: int, date: int, modified: int, expires: int, heuristic: Heuristic) -> int:
    if expires >= 0:
        return served + expires - date if expires > 0 and date >= 0 else expires
    if 0 <= modified < served:
        return served + min((served - modified) * heuristic.percent // 100, heuristic.limit_s)
    return served


def served_at(arrived: int, date: int, age: int = 0) -> int:
    """When the origin made an answer, as far as Squid believes it: not in the future, not more than a day ago."""
    served = date if arrived - _DAY_S <= date <= arrived and date >= 0 else arrived
    return arrived - age if arrived - served < age < arrived else served


def parse_date(text: bytes | None) -> int:
    """An HTTP date in seconds since 1970; -1 if Squid cannot read it.  A 31st of a shorter month is the next one's first."""
    if text is None:
        return -1
    when = _dates.get(text)
    if when is None:
        when = _parse_date(text)
        if len(text) <= _DATE_BYTES_MAX:
            if len(_dates) >= _DATES_MAX:
                _dates.clear()
            _dates[text] = when
    return when


def _parse_date(text: bytes) -> int:
    match = _date(text)
    if match is None:
        return -1
    if match[1]:
        day, month, year, hour, minute, second = match[1], match[2] or match[3], match[4], match[5], match[6], match[7]
    else:
        month, day, hour, minute, second, year = match.groups()[7:]
    number = _MONTHS.get(month.lower(), 0)
    second = second or b"0"
    full = int(year) + (0 if len(year) == 4 else 1900 if int(year) >= 70 else 2000)
    if not number or not 1 <= int(day) <= 31 or int(hour) > 23 or int(minute) > 59 or int(second) > 59 or not 1 <= full <= 9999:
        return -1
    days = calendar_date(full, number, 1).toordinal() - _EPOCH + int(day) - 1
    return days * _DAY_S + int(hour) * 3600 + int(minute) * 60 + int(second) if days >= 0 else -1


class _Head:
    """What a head says of freshness.

    date, expires: expires takes max-age into account.  is_empty: Content-Length is 0.
    is_unfit: a field forbids storing.  until: when the object becomes stale; marked: likewise, as ICP has it.
    """

    __slots__ = ("date", "expires", "is_empty", "is_unfit", "marked", "until")

    def __init__(self, fields: bytes, arrived: int, delay_s: int) -> None:
        control, pragma, date_text, expires_text, age, modified_text, vary, kind, length = _values(fields)
        lifetime, is_checked_always, is_unfit = _NO_CONTROL if control is None else _judge(control)
        if control is None and pragma is not None:
            is_checked_always = b"no-cache" in split_list(pragma.lower())
        self.date = date = parse_date(date_text)
        self.expires = expires = _expires(expires_text, date, lifetime, arrived)
        served = until = served_at(arrived, date, 0 if age is None else _seconds(age))
        if not is_checked_always:
            modified = -1 if expires >= 0 else parse_date(modified_text)
            until = _until(served, date, modified, expires, USUAL)
        self.until = self.marked = _bounded(until - delay_s)
        if vary is not None:
            names = split_list(vary)
            is_unfit = is_unfit or not names or b"*" in names
            self.marked = 0 if b"*" in names else _bounded(served - delay_s + VARY_MARKER_S)
        self.is_unfit = is_unfit or (kind is not None and kind.lower().startswith(_MIXED))
        self.is_empty = length == b"0"


# Fields that tell of freshness, in the order in which ``_Head`` takes them; those that are lists, whose lines are one value.
_FIELDS: Final = {
    b"cache-control": True,
    b"pragma": True,
    b"date": False,
    b"expires": False,
    b"age": False,
    b"last-modified": False,
    b"vary": True,
    b"content-type": False,
    b"content-length": False,
}
_picker: Final = Picker(_FIELDS)
_line_starts: Final = [(b"\n" + name + b":", is_list) for name, is_list in _FIELDS.items()]


def _values(fields: bytes) -> list[bytes | None]:
    """The values of ``_FIELDS``; compiled, in one pass: 2 us less (2026-11)."""
    if COMPILED:
        return _picker.pick(fields)
    low = fields.lower()
    return [_joined(fields, low, start) if is_list else _first(fields, low, start) for start, is_list in _line_starts]


def _first(fields: bytes, low: bytes, name: bytes) -> bytes | None:
    """The value of the first field with this name.

    Interpreted, a head takes 7 us so; with a pattern that picks all fields out it takes 9 (2026-11).

    low: ``fields`` in lower case.  name: so, too, with the line break before it and the colon.
    """
    at = low.find(name)
    if at < 0:
        return None
    return _line_from(fields, at + len(name)).strip(b" \t")


def _joined(fields: bytes, low: bytes, name: bytes) -> bytes | None:
    """The values of all fields with this name, as one list."""
    value = _first(fields, low, name)
    if value is None or low.count(name) == 1:
        return value
    ends = [at.end() for at in re.finditer(re.escape(name), low)]
    return b",".join([_line_from(fields, end).strip(b" \t") for end in ends])


def _line_from(fields: bytes, start: int) -> bytes:
    # a slice that ends before its start is b"", but a SystemError where mypyc has compiled it
    end = fields.find(b"\r", start)
    return fields[start:] if end < 0 else fields[start:end]


def _expires(text: bytes | None, date: int, lifetime: int, arrived: int) -> int:
    """When an answer says that it becomes stale; -1: it does not."""
    if lifetime >= 0:
        return date + lifetime if date >= 0 else arrived
    when = parse_date(text)
    return arrived if text is not None and when < 0 else when


def _judge(control: bytes) -> tuple[int, bool, bool]:
    """s-maxage, else max-age, else -1; whether it is never a hit without asking the origin; whether it may not be stored.

    The first of several counts, as for Squid; a value that it cannot read is none.  "Max-Age" is none either: Squid 5 knows
    directives in lower case only (6 and later know all), so of what it stores and what not the shorter life is taken.
    """
    verdict = _verdicts.get(control)
    if verdict is not None:
        return verdict
    ages: dict[bytes, int] = {}
    no_cache = b""
    for element in split_list(control):
        name, equals, value = element.partition(b"=")
        if name == b"max-age" or name == b"s-maxage":
            seconds = _seconds(value)
            if seconds >= 0:
                ages.setdefault(name, seconds)
        elif name.lower() == b"no-cache" and not no_cache:
            no_cache = b"some" if len(value) > 2 and value[:1] == b'"' else b"" if equals and value != b'""' else b"all"
    uncacheable, _ = cacheability(control, None, None)
    verdict = (
        ages.get(b"s-maxage", ages.get(b"max-age", -1)),
        no_cache == b"all" or uncacheable == b"private",
        no_cache == b"some" or bool(uncacheable),
    )
    if len(control) <= _VERDICT_BYTES_MAX:
        if len(_verdicts) >= _VERDICTS_MAX:
            _verdicts.clear()
        _verdicts[control] = verdict
    return verdict


def _seconds(text: bytes) -> int:
    """A number as C's atoi reads it into 32 bits; -1 where that is below 0, or there is none."""
    match = _number(text)
    if match is None or (not text[:1].isdigit() and not int(match[1])):
        return -1
    number = min(int(match[1]), (1 << 63) - 1) & 0xFFFFFFFF
    return number if number < 1 << 31 else -1


def _bounded(until: int) -> int:
    return min(max(until, 1), _YEAR_2106 - 1)

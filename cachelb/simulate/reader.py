"""From lines to requests of the farm: each URL becomes a number, each line that counts a number, a word and a second.

A word is ``size << KIND_BITS | kind`` (kinds.py).  URLs are told apart by 61 bits of their hash: of ten million, two are taken
for one with a chance of 1 : 40,000.  That takes 140 bytes for each distinct URL, and it is all that grows; ``urls_limit``
bounds it.

Left out: where lines come from (source.py) and where requests go (trace.py).
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from cachelb.errors import BadRequest, CommandError
from cachelb.routing.classify import Policy
from cachelb.simulate.kinds import BAD_URL, KIND_BITS, REASONS, judge, refusal
from cachelb.simulate.logline import Words, native, words_of

URLS_LIMIT = 20_000_000  # 2.8 GB
LINE_BYTES = 1 << 20  # longer ones are bad; Squid's own have 64 KiB at most
SHOWN_BAD = 3
SHOWN_BYTES = 200
_KINDS_LIMIT = 4096  # pairs of method and result code; a log has below 100

_CODES = {reason: -1 - number for number, reason in enumerate(REASONS)}


class TooManyUrlsError(CommandError):
    """More distinct URLs than there is room for."""


class Requests(NamedTuple):
    """Some requests, one index each.  urls: numbers; words: size and kind; seconds: since 1970."""

    urls: array[int]
    words: array[int]
    seconds: array[int]


class Reader:
    """Reads lines and keeps count of what they were.

    Attributes:
        requests: lines that are requests of the farm.  bad: those in no known format; shown: the first of them, cut.
        left_out: lines by reason; bytes_left_out: what they sent.  skipped: lines whose URLs are not in the sample.
        urls: how many distinct ones there are.
    """

    def __init__(self, policy: Policy, sample: float = 1.0, urls_limit: int = URLS_LIMIT) -> None:
        """Begin.

        Args:
            policy: which URLs the director would send to their owners.
            sample: the part of the URLs that is looked at, above 0 to 1, chosen by a hash of the URL.
        """
        self.requests = self.bad = self.skipped = 0
        self.shown: list[bytes] = []
        self.left_out: Counter[str] = Counter()
        self.bytes_left_out = 0
        self.urls = 0
        self._new_urls: list[bytes] = []
        self._policy = policy
        self._urls_limit = urls_limit
        self._below = round(sample * (1 << 32))
        self._is_sample = sample < 1.0
        self._numbers: dict[int, int] = {}  # by hash; below 0: a reason
        self._kinds: dict[tuple[bytes, bytes], int | str] = {}

    def feed(self, lines: Iterable[bytes]) -> Requests:
        """The requests of `lines`, which come without their line breaks; empty lines are nothing.

        1.6 us a line, 3 us more for a URL that is new (2026-11).

        Raises:
            TooManyUrlsError: There is no room for another URL.
        """
        urls, words, seconds = array("I"), array("Q"), array("I")
        add_url, add_word, add_second = urls.append, words.append, seconds.append
        numbers, kinds = self._numbers, self._kinds
        for line in lines:
            match = native(line)
            found = match.groups() if match is not None else self._other(line)
            if found is None:
                continue
            second, code, size, method, url = found
            kind = kinds.get((method, code))
            if kind is None:
                kind = self._judge(method, code)
            if type(kind) is str:
                self.left_out[kind] += 1
                self.bytes_left_out += int(size)
                continue
            if self._is_sample and zlib.crc32(url) >= self._below:
                self.skipped += 1
                continue
            number = numbers.get(hash(url))
            if number is None:
                number = self._number(url)
            if number < 0:
                self.left_out[REASONS[-1 - number]] += 1
                self.bytes_left_out += int(size)
                continue
            add_url(number)
            add_word(int(size) << KIND_BITS | kind)  # type: ignore[operator]
            add_second(int(second))
        self.requests += len(urls)
        return Requests(urls, words, seconds)

    def take_urls(self) -> list[bytes]:
        """The canonical URLs that are new since the last call, in the order of their numbers."""
        new, self._new_urls = self._new_urls, []
        return new

    @property
    def lines(self) -> int:
        """All lines but empty ones."""
        return self.requests + self.bad + self.left_out.total() + self.skipped

    def _other(self, line: bytes) -> Words | None:
        """The words of a line that is not in the native format; what has none is counted."""
        line = line.rstrip(b"\r")
        words = words_of(line) if len(line) <= LINE_BYTES else None
        if words is None and line:
            self.bad += 1
            if len(self.shown) < SHOWN_BAD:
                self.shown.append(line[:SHOWN_BYTES])
        return words

    def _judge(self, method: bytes, code: bytes) -> int | str:
        kind = judge(method, code, self._policy)
        if len(self._kinds) >= _KINDS_LIMIT:
            self._kinds.clear()
        self._kinds[method, code] = kind
        return kind

    def _number(self, target: bytes) -> int:
        """The number of a URL that has none yet in this form of it."""
        try:
            url, reason = refusal(target, self._policy)
        except BadRequest:
            url, reason = target, BAD_URL
        if len(self._numbers) >= self._urls_limit:
            raise TooManyUrlsError(f"there are more than {self._urls_limit:,} distinct URLs")
        number = _CODES[reason] if reason else self._numbers.get(hash(url))
        if number is None:
            number = self.urls
            self.urls += 1
            self._new_urls.append(url)
            self._numbers[hash(url)] = number
        self._numbers[hash(target)] = number
        return number

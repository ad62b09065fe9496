"""What answers taught: URLs, and whole segments of sites, that no shared cache may store.

A URL whose answer was ``private``, ``no-store`` or ``Vary: *`` goes around the farm next time.  When enough different
URLs under one host and first path segment were like that, and none was storable, the segment is learned, and URLs
under it that were never seen go around, too.  Nothing is learned for good::

    unknown --uncacheable--> learned --ttl_s over, or a storable answer--> unknown

A learned segment is also tested while it lasts: one lookup in 64 says "unknown", so that a site which has changed, or
a segment that is mixed, is found out.

Left out: reading the answer (http/response.py), telling other workers (they get the Lessons that come out of `observe`).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

MAX_URLS: Final = 50_000  # at 100 to 200 bytes a URL 10 to 15 MiB, 35 MiB at worst
MAX_SEGMENTS: Final = 5_000
MAX_KEY_BYTES: Final = 512  # longer keys are seldom asked for twice, and would make the bounds above mean little
SEGMENT_THRESHOLD: Final = 8
RETEST_EVERY: Final = 64


class Lesson(NamedTuple):
    """Something learned, or to be forgotten, that other workers should know.

    key: the URL's key or the segment.  why: ``private``, ``no-store``, ...; empty when it is to be forgotten.
    expires_in_s: how long it holds; 0 means forget.
    """

    kind: Literal["url", "segment"]
    key: bytes
    why: str
    expires_in_s: float


class _Entry:
    """One thing learned, with the text that lookups return."""

    __slots__ = ("expires", "lookups", "text")

    def __init__(self, text: str, expires: float) -> None:
        self.text = text
        self.expires = expires
        self.lookups = 0


class Learned:
    """A bounded memory; when it is full, the oldest goes first.  Times are in seconds on one monotonic clock.

    size: how many things are known; 0 lets a caller skip the lookup.
    runs: segment -> uncacheable URLs since the last storable one.  With neither, a storable answer need not be observed.
    """

    __slots__ = ("_max_segments", "_max_urls", "_segments", "_threshold", "_ttl_s", "_urls", "runs", "size")

    def __init__(
        self,
        ttl_s: float = 600.0,
        segment_threshold: int = SEGMENT_THRESHOLD,
        max_urls: int = MAX_URLS,
        max_segments: int = MAX_SEGMENTS,
    ) -> None:
        self._ttl_s = ttl_s
        self._threshold = segment_threshold
        self._max_urls = max_urls
        self._max_segments = max_segments
        self._urls: dict[bytes, _Entry] = {}
        self._segments: dict[bytes, _Entry] = {}
        self.runs: dict[bytes, int] = {}  # segment -> uncacheable URLs since the last storable one
        self.size = 0

    def sizes(self) -> tuple[int, int]:
        """How many URLs and how many segments are known."""
        return len(self._urls), len(self._segments)

    def lookup(self, key: bytes, segment: bytes, now: float) -> str | None:
        """Return why ``key`` should go around the farm, or None.

        "learned url private" or "learned segment private": a constant per thing learned, nothing is formatted.
        """
        entry = self._urls.get(key)
        if entry is not None:
            if now < entry.expires:
                return entry.text
            self._drop(self._urls, key)
        entry = self._segments.get(segment)
        if entry is not None:
            if now >= entry.expires:
                self._drop(self._segments, segment)
                return None
            entry.lookups += 1
            if entry.lookups % RETEST_EVERY:
                return entry.text
        return None

    def observe(self, key: bytes, segment: bytes, uncacheable: bytes, storable: bool, now: float) -> list[Lesson]:
        """Take in one answer.

        Args:
            uncacheable: What forbids storing it, empty if nothing does.
            storable: The answer says that it may be stored.  An answer that is neither teaches nothing.

        Returns:
            What is new, for the other workers; mostly nothing.
        """
        if uncacheable:
            return self._observe_uncacheable(key, segment, uncacheable.decode("latin-1"), now)
        if storable and (self.size or self.runs):
            return self._observe_storable(key, segment)
        return []

    def learn(self, lesson: Lesson, now: float) -> None:
        """Take over what another worker learned or forgot."""
        known = self._urls if lesson.kind == "url" else self._segments
        if lesson.expires_in_s <= 0:
            self._drop(known, lesson.key)
            if lesson.kind == "segment":
                self.runs.pop(lesson.key, None)
        elif len(lesson.key) <= MAX_KEY_BYTES:
            self._store(lesson, now)

    def expire(self, now: float) -> int:
        """Forget what is over; return how many things that were.  Walks everything: for a slow tick, not a request."""
        over = 0
        for known in (self._urls, self._segments):
            for key in [key for key, entry in known.items() if now >= entry.expires]:
                del known[key]
                over += 1
        self.size -= over
        return over

    def _observe_uncacheable(self, key: bytes, segment: bytes, why: str, now: float) -> list[Lesson]:
        known = self._urls.get(key)
        if (known is not None and now < known.expires) or len(key) > MAX_KEY_BYTES:
            return []
        lessons = [Lesson("url", key, why, self._ttl_s)]
        self._store(lessons[0], now)
        held = self._segments.get(segment)
        if (held is None or now >= held.expires) and len(segment) <= MAX_KEY_BYTES:
            # Only URLs that were not known are counted, so the run is one of different URLs.
            run = self.runs.pop(segment, 0) + 1
            if run >= self._threshold:
                lessons.append(Lesson("segment", segment, why, self._ttl_s))
                self._store(lessons[1], now)
            else:
                self.runs[segment] = run
                if len(self.runs) > self._max_segments:
                    del self.runs[next(iter(self.runs))]
        return lessons

    def _observe_storable(self, key: bytes, segment: bytes) -> list[Lesson]:
        lessons = []
        self.runs.pop(segment, None)
        if self._drop(self._urls, key):
            lessons.append(Lesson("url", key, "", 0.0))
        if self._drop(self._segments, segment):
            lessons.append(Lesson("segment", segment, "", 0.0))
        return lessons

    def _store(self, lesson: Lesson, now: float) -> None:
        if lesson.kind == "url":
            known, limit = self._urls, self._max_urls
        else:
            known, limit = self._segments, self._max_segments
        self._drop(known, lesson.key)  # so that it is put at the young end
        known[lesson.key] = _Entry(f"learned {lesson.kind} {lesson.why}", now + lesson.expires_in_s)
        self.size += 1
        if len(known) > limit:
            self._drop(known, next(iter(known)))

    def _drop(self, known: dict[bytes, _Entry], key: bytes) -> bool:
        if known.pop(key, None) is None:
            return False
        self.size -= 1
        return True

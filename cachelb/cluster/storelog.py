"""What a node says of its store: datagrams of Squid's ``cache_store_log udp://DIRECTOR:PORT`` become events.

    1795234877.944 SWAPOUT 00 0000001B 7F7F7A4F1B1F1CB79AAE1A82378AAB50  200 1795234877        -1 1795238477 a/b 9/9 GET http://a/x
    time, action, directory and file, store key, status, Date, Last-Modified, Expires, type, sizes, method, log URI

How Squid 5.7 writes it, found with a real one (tests/squid/test_storelog.py repeats it); its store_log.cc is the same up
to 7.6.  One line a datagram, also with ``buffered_logs on``; we take several.

- SWAPOUT when an object is complete on disk.  Expires is Date + max-age where that is given; the numbers are 32 bits,
  so that what lies after 2038 looks negative; -1 = none.  What is replaced is RELEASEd first, under the same key.
- RELEASE when an object is purged, evicted, replaced or invalidated (by POST, by a HEAD that was a miss).  Where it is on
  disk only, all that follows the key is ``?``.
- A *private* key is no MD5 but a counter, Squid's process id and its worker number.  It is seen in three cases.  Answers
  that were never stored: RELEASE -1 FFFFFFFF.  Objects that were purged or replaced while a client was reading them:
  RELEASE with their file number when the client is done, and only their URL says which they were (``ENDED``).
  And a 304 that renews an object: RELEASE with the Date and Expires of the 304, and the object's URL (``RENEWED``);
  nothing else says that it is fresh again.  A 304 without Expires and max-age renews too, but does not say until when.
- The log URI has lost its query where ``strip_query_terms`` is on (the default), and escapes what is odd.  The key made
  from it is then nobody's, and ENDED and RENEWED do nothing.  SWAPOUT and RELEASE of public keys do not depend on it.
- HEAD is stored under a key of its own, which no peer asks for.  A HEAD that is a hit says nothing.
- Vary: a marker (type ``x-squid-internal/vary``, 100,000 s) under the URL's key, each variant under another.  PURGE
  releases the variant that fits its fields and the marker with it (not the marker, if the fields that vary are missing).  As long
  as the marker is there, ICP says HIT, whatever became of the variants, and so do we.
- Range: a 206 is never stored; where the origin answers 200 to a Range, the whole is.
- Errors are not stored, unless ``negative_ttl`` is set: then SWAPOUT of a 404 without Expires; the log does not say for
  how long ICP calls it a HIT, and we never do.  200, 301 and 410 are stored even without freshness; ICP says MISS.
- Never said: what is in memory alone (a node without ``cache_dir`` says nothing; after SO_FAIL, when the disk is too
  busy, an object stays in memory), the Age with which an answer came (Squid subtracts it), what a restarted Squid finds on its
  disk, or that it found nothing; but its process id changes (``restarts``).

Left out: sockets, whose datagram it is (its sender's address is all there is: check it), and ``tcp://``.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from cachelb.http.freshness import Heuristic, fresh_until
from digest import store_key

from .holdings import Holdings, Source

# Squid sends one line a datagram; 64 KiB of empty lines must not cost more than as many real ones could.
LINES_LIMIT = 512

_LINE = re.compile(
    rb"(\d{1,10})\.\d{3} (SWAPOUT|RELEASE|SO_FAIL|CREATE|SWAPIN) ++(-?\d{1,4}) ([0-9A-F]{8}) ([0-9A-F]{32})"
    rb" ++(?:\? ++\? ++\? ++\? \?/\?(?: \?/\?)? \? \?|"
    rb"(-?\d{1,5}) ++(-?\d{1,10}) ++(-?\d{1,10}) ++(-?\d{1,10}) ([^ ]++) -?\d{1,20}/-?\d{1,20} ([^ ]++) ([^ ]++))"
)
_KEY_AT = 4  # fields before the key
_KEY = re.compile(rb"[0-9A-F]{32}")
_ACTIONS = frozenset((b"SWAPOUT", b"RELEASE", b"SO_FAIL", b"CREATE", b"SWAPIN"))
# Source: Squid 5.7, store_key_md5.cc, storeKeyPrivate().
_PRIVATE = struct.Struct("<QIi")  # counter, process id, worker
_COUNTER_MAX, _PROCESS_MAX, _WORKER_MAX = 1 << 40, 1 << 22, 256  # an MD5 looks like this once in 2^58
_YEAR_2106 = 1 << 32


class What(Enum):
    """What happened to a key."""

    STORED = "stored"  # it is on disk, fresh until `expires`
    RELEASED = "released"  # it is gone
    ENDED = "ended"  # an object of this key and `expires` is gone; a newer one may be there
    RENEWED = "renewed"  # if it is there, it is fresh until `expires`


class Event(NamedTuple):
    """One thing that a node's store log told.  expires: wall clock, 0 = not known; may be past."""

    what: What
    key: bytes
    expires: int = 0


class StoreLog:
    """The store log of one node.

    counts: lines by what was made of them: the values of ``What``; "private", "method", "action" (understood, and of no
    interest); "bad_line", "bad_action", "bad_key", "bad_number", "cut" (no newline), "excess" (more than LINES_LIMIT).
    restarts: how often the node's process id changed.
    """

    def __init__(self, heuristic: Heuristic | None = Heuristic()) -> None:  # noqa: B008
        self.counts: Counter[str] = Counter()
        self.restarts = 0
        self._heuristic = heuristic
        self._processes: dict[int, int] = {}  # worker -> process id

    def read(self, datagram: bytes) -> list[Event]:
        """Return the events of one datagram in their order.  Whatever it contains, this does not raise.

        About 4 us for one line (2026-11).
        """
        *lines, rest = datagram.split(b"\n", LINES_LIMIT)
        if rest:
            self.counts["excess" if len(lines) == LINES_LIMIT else "cut"] += 1
        events = []
        for line in lines:
            found = _LINE.fullmatch(line)
            if found is None:
                self.counts[_fault(line)] += 1
                continue
            event = self._event(found)
            if isinstance(event, Event):
                self.counts[event.what.value] += 1
                events.append(event)
            else:
                self.counts[event] += 1
        return events

    def _event(self, found: re.Match[bytes]) -> Event | str:
        """The event of a well-formed line, or under which word to count it."""
        logged, action, directory, _, digits, status, date, modified, expires, _, method, url = found.groups()
        key = bytes.fromhex(digits.decode())
        is_private = self._is_private(key)
        if action != b"SWAPOUT" and action != b"RELEASE":
            return "action"
        if status is None:
            return "private" if is_private else Event(What.RELEASED, key)
        if method != b"GET":
            return "method"
        is_304 = status == b"304"
        if action == b"RELEASE" and not is_private:
            return Event(What.RELEASED, key)
        if is_private and (action == b"SWAPOUT" or (directory == b"-1" and not is_304)):
            return "private"
        times = _times(logged, date, modified, expires)
        if times is None:
            return "bad_number"
        until = fresh_until(*times, None if is_304 else self._heuristic)
        if not is_private:
            return Event(What.STORED, key, until)
        if not is_304:
            return Event(What.ENDED, store_key(url), until)
        return Event(What.RENEWED, store_key(url), until) if until else "private"

    def _is_private(self, key: bytes) -> bool:
        """Whether the key is private; takes notice of the process that made it."""
        counter, process, worker = _PRIVATE.unpack(key)
        if counter >= _COUNTER_MAX or process >= _PROCESS_MAX or not 0 <= worker < _WORKER_MAX:
            return False
        if self._processes.setdefault(worker, process) != process:
            self._processes[worker] = process
            self.restarts += 1
        return True


def apply(events: Iterable[Event], holdings: Holdings, node: int) -> None:
    """Let `holdings` know what the store log of `node` told."""
    for what, key, expires in events:
        if what is What.STORED:
            holdings.remove(key, node)  # a new object: what was known of the old one is no longer true
            holdings.add(key, node, expires, Source.STORE_LOG)
        elif what is What.RELEASED:
            holdings.remove(key, node)
        elif what is What.ENDED:
            holdings.remove(key, node, expires)
        else:
            holdings.renew(key, node, expires)


def _times(logged: bytes, *others: bytes) -> tuple[int, int, int, int] | None:
    """Times as Squid prints them, through signed 32-bit integers; -1 stays -1.  None: one of them cannot be one."""
    times = [int(logged), *map(int, others)]
    for at, number in enumerate(times):
        if not -(_YEAR_2106 >> 1) <= number < _YEAR_2106:
            return None
        if number < -1:
            times[at] = number + _YEAR_2106
    first, date, modified, expires = times
    return first, date, modified, expires


def _fault(line: bytes) -> str:
    """Under which word to count a line that is not one of Squid's."""
    fields = line.split(maxsplit=_KEY_AT + 1)
    if len(fields) < _KEY_AT + 2:
        return "bad_line"
    if fields[1] not in _ACTIONS:
        return "bad_action"
    return "bad_line" if _KEY.fullmatch(fields[_KEY_AT]) else "bad_key"

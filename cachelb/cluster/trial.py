"""A node's digest tries what is recorded of the node: what it should contain and does not, the node holds no longer.

A digest cannot be listed, but it can be asked.  A key that it does not contain was not in the node's store when the digest
was made, or not fresh for another rebuild period; so only records that stay fresh for longer can fail (*testable*).
Squid does not put in either what is negative-cached, nor what is on a rock disk or in shared memory; and of the last bucket
of its hash table it puts in one object only, so what may be in there is not testable (``_LAST_BUCKET``).

Records have no time of birth.  Instead each is RECENT until a trial has visited it; if the next digest was made after that
(``follows``), it must know the record.  So what is gone is found out by the second digest at the latest, and what arrived
after the digest was made is left alone.  After a restart of the node (``settles``) there is no such chance for
what was recorded before it (OLD): the node has told all that it found on its disk.

A first look at up to SAMPLE records comes before the judgement:

- KEPT: the rule above.
- EMPTIED: less than a fifth of what should be in the digest is.  The node was emptied; all that is not in the digest is
  forgotten, testable or not.  Believed after a restart, and else of digests that used to know the node's objects.
- MUTE: the same of a digest that never did (a rock disk; a digest that is rewritten more often than it is rebuilt).
  It says nothing, and nothing is forgotten for it.

False positives of the mask (8 to 11 % with Squid's default) are taken off the shares.  A record that one of them saves
fails with a later digest, when other keys set the bits; of a node that was emptied, what seems to be there is not believed
if most of that must be false.

Left out: where digests come from and when (``nodedigests``); buckets (``Holdings.visit``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from digest import BadDigest, Digest, Mask, parse_digest

from .record import BUCKETS, GONE, MARK_OLD, MARK_RECENT, MARK_SOURCE, Source

# Beyond the rebuild period: clocks that differ, ages that the store log does not tell, a rebuild that takes its time.
MARGIN_S = 60.0
# Squid's walk through its store is over as soon as it gets to the last bucket of its hash table, of which it has then told
# one object (LocalSearch::isDone; 5.7, and as late as 2026-08).  The bucket is the low bits of a key's first four bytes,
# little-endian, 13 bits at least: one key in 8,192 may be in the last one.
_LAST_BUCKET = 0x1FFF
SAMPLE = 1000
SAMPLE_MIN = 20  # below that, shares say nothing
EMPTIED_SHARE = 0.2
TRUSTED_SHARE = 0.5


class ReadDigest(NamedTuple):
    """A digest, and what takes too long to be computed of it in the event loop.  seal: of two equal ones it is the same."""

    digest: Digest
    fill: float
    false_positives: float
    seal: bytes


def read_digest(body: bytes, limit_bytes: int) -> ReadDigest:
    """Parse a digest that may be used for a trial.  Raises BadDigest."""
    digest = parse_digest(body, limit_bytes)
    fill = digest.mask.fill
    if digest.is_useless:
        raise BadDigest(f"{fill:.0%} of its bits are set: it says yes to too much")
    return ReadDigest(digest, fill, digest.mask.false_positives, blake2b(body, digest_size=16).digest())


class Verdict(Enum):
    """What a digest says of the node as a whole."""

    KEPT = "kept"
    EMPTIED = "emptied"
    MUTE = "mute"


@dataclass(frozen=True, slots=True)
class Terms:
    """How far a digest is believed.

    fresh_after: wall clock; what is fresh for longer than until then should be in it.
    follows: it was made after the trial before this one had ended.
    settles: it was made by a process of the node that was started after the OLD records were made.
    spares_log: what the store log told is exact, and left alone.
    is_trusted: an earlier digest of the node contained most of what it should.
    """

    fresh_after: float
    follows: bool = False
    settles: bool = False
    spares_log: bool = False
    is_trusted: bool = False


class Trial:
    """One digest and the records of one node, in slices; the records may change between them.

    Args:
        mask: of the digest.
        false_positives: of the mask, 0 to 1: counting its bits takes longer than a slice may.
        terms: how far it is believed.

    verdict: None until it is known.  is_trusted: for the next one's ``Terms``.  share: of what should be in the digest, how
    much is, 0 to 1.  confirmed, missing, removed: records that the digest contains; that it does not, though it should; that
    were removed for it.
    """

    def __init__(self, mask: Mask, false_positives: float, terms: Terms) -> None:
        self.verdict: Verdict | None = None
        self.is_trusted = terms.is_trusted
        self.share = 0.0
        self.confirmed = self.missing = self.removed = 0
        self._mask = mask
        self._terms = terms
        self._false = false_positives
        self._left = BUCKETS
        self._is_believed = True  # what is in the digest
        self._known = [0, 0]  # of records that should be in it if they are not recent: how many, how many are
        self._due = [0, 0]  # of those that must be in it

    @property
    def left(self) -> int:
        """How many buckets are to be visited before something else begins, or the trial is over (0)."""
        return self._left

    def passed(self, buckets: int) -> None:
        """So many buckets were visited; at most ``left``."""
        self._left -= buckets
        if self.verdict is None and (self._left <= 0 or max(self._due[0], self._known[0] // 2) >= SAMPLE):
            self._decide()
            self._left = BUCKETS

    def judge(self, keys: bytes, times: list[int], marks: list[int]) -> list[int]:
        """As ``holdings.Judge``."""
        contained = self._mask.contains_many(keys)
        if self.verdict is None:
            self._look(contained, times, marks)
            return marks
        return [
            self._judged(is_in, low | high << 8, expires, mark)
            for is_in, low, high, expires, mark in zip(contained, keys[::16], keys[1::16], times, marks, strict=True)
        ]

    def _look(self, contained: bytes, times: list[int], marks: list[int]) -> None:
        after = self._terms.fresh_after
        for is_in, expires, mark in zip(contained, times, marks, strict=True):
            if expires > after:
                self._known[0] += 1
                self._known[1] += is_in
                if self._is_due(mark):
                    self._due[0] += 1
                    self._due[1] += is_in

    def _is_due(self, mark: int) -> bool:
        """Whether the node had this record, if it has it at all, when the digest was made."""
        if mark & MARK_OLD and self._terms.settles:
            return True
        if self._terms.spares_log and mark & MARK_SOURCE == Source.STORE_LOG:
            return False
        return self._terms.follows and not mark & MARK_RECENT

    def _decide(self) -> None:
        count, share = self._due[0], self._share(*self._due)
        self.verdict = Verdict.KEPT
        if count >= SAMPLE_MIN and share < EMPTIED_SHARE:
            self.verdict = Verdict.EMPTIED if self._terms.settles or self._terms.is_trusted else Verdict.MUTE
        self.share = self._share(*self._known)
        if self.verdict is Verdict.EMPTIED:
            self.is_trusted = False  # the next one must have what came since
            self._is_believed = share > self._false
        elif self._known[0] >= SAMPLE_MIN and self.share >= TRUSTED_SHARE:
            self.is_trusted = True

    def _share(self, count: int, contained: int) -> float:
        """Contained of so many, without false positives."""
        if not count or self._false >= 1:
            return 0.0
        return max(0.0, (contained / count - self._false) / (1 - self._false))

    def _judged(self, is_in: int, key_start: int, expires: int, mark: int) -> int:
        if self.verdict is Verdict.MUTE:
            return mark & ~MARK_OLD
        if is_in and self._is_believed:
            self.confirmed += 1
            return max(mark & MARK_SOURCE, Source.DIGEST)
        is_old = mark & MARK_OLD and self._terms.settles
        if not is_old and self._terms.spares_log and mark & MARK_SOURCE == Source.STORE_LOG:
            return mark & ~MARK_OLD
        is_testable = expires > self._terms.fresh_after and key_start & _LAST_BUCKET != _LAST_BUCKET
        self.missing += is_testable
        if self.verdict is Verdict.EMPTIED:
            is_gone = bool(is_old) or not self._terms.settles
        else:
            is_gone = is_testable and self._is_due(mark)
        self.removed += is_gone
        return GONE if is_gone else mark & MARK_SOURCE

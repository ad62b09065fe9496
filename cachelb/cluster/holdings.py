"""Who holds what: Squid store keys, per node, with the time until which each object is fresh.

    holdings = Holdings()
    holdings.add(key, node, expires=1795238477, source=Source.STORE_LOG)
    holdings.holds(key, now, live=mask_of([0, 2]))      # does a live node hold it, fresh for 30 s more?

A key is 16 bytes of MD5.  Its first 18 bits choose one of 262,144 buckets; a bucket is a bytearray of records (``record``)
so that a look-up is one ``bytearray.find``, and a match that does not begin at a record is passed over.  A key that
three nodes hold has three records.

Records do not name nodes but *slots*, and a table says which slot is which node's.  Forgetting a node only takes its slot
away: its records mean nothing from then on, and ``expire`` collects them a little at a time.

Times are the wall clock's, in whole seconds, for that is what Squid stores and logs.

Left out: where the keys come from (``storelog``, ``index``), how a node's digest tests its records (``trial``), keeping them
over a restart (``saved``), and which nodes are live.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from .lookup import held
from .record import (
    BUCKETS,
    GENERATION,
    GONE,
    KEY_BYTES,
    RECORD,
    SLOT,
    SLOTS,
    SOURCE,
    SOURCE_SHIFT,
    TAG,
    TAG_AT,
    TAIL,
    TAIL_AT,
    TAILS,
    Holding,
    Source,
    count_slots,
    head_of,
    lower,
)
from .slots import Slots, mask_of

__all__ = ["BUCKETS", "KEYS_LIMIT", "KEY_BYTES", "RECORD", "SLOTS", "Holding", "Holdings", "Source", "mask_of"]

# 36 bytes of resident memory a key, 750,000 look-ups and 500,000 adds a second (2026-11, tools/bench/holdings.py).
KEYS_LIMIT = 5_000_000
# What ICP promises: fresh for 30 s more.  Source: Squid 5.7, refresh.cc, refreshCheckICP().
MARGIN_S = 30
# Squid keeps what is stale and renews it without storing it anew, so a record must outlive its object's freshness.
STALE_KEPT_S = 3600

_SIZE = RECORD.size
_EXPIRES_MAX = 0xFFFFFFFF
# Somebody may choose URLs whose keys fall into one bucket; no honest population comes near eight times the mean.
_CROWDED = 8
_BUCKET_RECORDS_MIN = 64
# Buckets for one step of `keys`: 5,000 keys of 5 million, 1.3 ms (2026-11).
_STEP = 256

# Keys of some records of one node, end to end, when each becomes stale, and their marks -> their new marks, or GONE.
Judge = Callable[[bytes, list[int], list[int]], Sequence[int]]


class Holdings:
    """The table: at most `keys_limit` records.  When it is full, what becomes stale soonest makes room, bucket by bucket.

    changes: grows with each.  as_of: when the table that this one was restored from was saved; 0: it began empty.
    """

    __slots__ = (
        "_bits", "_bucket_bytes_limit", "_buckets", "_counts", "_hand", "_of", "_records", "_slots", "_stamps", "_swept",
        "as_of", "changes", "keys_limit",
    )  # fmt: skip

    def __init__(self, keys_limit: int = KEYS_LIMIT) -> None:
        if keys_limit < 1:
            raise ValueError(f"room for {keys_limit} keys")
        self.keys_limit = keys_limit
        self.changes = 0
        self.as_of = 0
        self._bucket_bytes_limit = max(_BUCKET_RECORDS_MIN, _CROWDED * keys_limit // BUCKETS) * _SIZE
        # a tuple of what has no references is not visited by the garbage collector; of a list this costs it 3 to 9 ms
        self._buckets = tuple(bytearray() for _ in range(BUCKETS))
        self._records = 0  # all, those of retired slots included
        self._counts = [0] * SLOTS  # the same by slot
        self._slots = Slots()
        self._of, self._bits, self._stamps = self._slots.of, self._slots.bits, self._slots.stamps
        self._hand = 0  # buckets in which room was made
        self._swept = 0  # buckets that `expire` has visited

    def add(self, key: bytes, node: int, expires: int, source: Source) -> bool:
        """Record that `node` holds `key`.

        Args:
            key: 16 bytes.
            node: 0 to 4095.
            expires: when it becomes stale; 0 = not known, which leaves a known time as it is.
            source: the surer of this one and of what is recorded stays.

        Returns:
            Whether it was not known yet.
        """
        slot = self._of.get(node)
        if slot is None:
            slot = self._new_slot(node)
        expires = min(max(expires, 0), _EXPIRES_MAX)
        bucket = self._buckets[key[0] << 10 | key[1] << 2 | key[2] >> 6]
        rest = key[2:]
        at = self._find(bucket, rest, slot)
        self.changes += 1
        if at >= 0:
            known, tag = TAIL.unpack_from(bucket, at + TAIL_AT)
            surer = max(source << SOURCE_SHIFT, tag & SOURCE)
            TAIL.pack_into(bucket, at + TAIL_AT, expires or known, self._stamps[slot] | surer)
            return False
        if len(rest) != KEY_BYTES - 2:
            raise ValueError(f"a key of {len(key)} bytes")
        if len(bucket) >= self._bucket_bytes_limit:
            self._make_room(bucket)
        elif self._records >= self.keys_limit:
            self._make_room(self._next_bucket())
        bucket += RECORD.pack(rest, expires, self._stamps[slot] | source << SOURCE_SHIFT)
        self._counts[slot] += 1
        self._records += 1
        return True

    def renew(self, key: bytes, node: int, expires: int) -> bool:
        """The node's copy, if it has one, stays fresh until `expires` at least.  Returns whether it has one."""
        bucket = self._buckets[key[0] << 10 | key[1] << 2 | key[2] >> 6]
        at = self._find(bucket, key[2:], self._of.get(node, -1))
        if at < 0:
            return False
        known, tag = TAIL.unpack_from(bucket, at + TAIL_AT)
        until = min(expires, _EXPIRES_MAX) if known and expires > known else known
        TAIL.pack_into(bucket, at + TAIL_AT, until, self._stamps[tag & SLOT] | tag & SOURCE)
        self.changes += 1
        return True

    def doubt(self, key: bytes, node: int) -> bool:
        """The node may hold `key` no longer: what was sure is only SEEN.  Returns whether there was something sure."""
        bucket = self._buckets[key[0] << 10 | key[1] << 2 | key[2] >> 6]
        at = self._find(bucket, key[2:], self._of.get(node, -1))
        if at < 0 or not TAG.unpack_from(bucket, at + TAG_AT)[0] & SOURCE:
            return False
        TAG.pack_into(bucket, at + TAG_AT, TAG.unpack_from(bucket, at + TAG_AT)[0] & ~SOURCE)
        self.changes += 1
        return True

    def remove(self, key: bytes, node: int, expires: int | None = None) -> bool:
        """`node` holds `key` no longer.  Returns whether a record is gone.

        expires: remove it only if it was recorded with this time, so that a newer object of the same key stays.
        """
        bucket = self._buckets[key[0] << 10 | key[1] << 2 | key[2] >> 6]
        at = self._find(bucket, key[2:], self._of.get(node, -1))
        if at < 0 or (expires is not None and TAIL.unpack_from(bucket, at + TAIL_AT)[0] != expires):
            return False
        self._cut(bucket, at)
        return True

    def holds(self, key: bytes, now: float, live: int, margin_s: int = MARGIN_S) -> bool:
        """Whether a node in `live` (a ``mask_of``) holds `key`, fresh at `now` + `margin_s` still, or for an unknown time."""
        return self.holds_all((key,), now, live, margin_s)[0]

    def holds_all(self, keys: Iterable[bytes], now: float, live: int, margin_s: int = MARGIN_S) -> list[bool]:
        """The same for each of `keys`."""
        return held(self._buckets, self._bits, keys, int(now + margin_s), live)

    def holders(self, key: bytes) -> list[Holding]:
        """All that is recorded of `key`, fresh or not: whom a purge must reach."""
        found = []
        bucket = self._buckets[key[0] << 10 | key[1] << 2 | key[2] >> 6]
        for rest, expires, tag in RECORD.iter_unpack(bucket):
            if rest == key[2:] and self._bits[tag & SLOT]:
                found.append(Holding(self._slots.nodes[tag & SLOT], expires, Source((tag & SOURCE) >> SOURCE_SHIFT)))
        return found

    @property
    def records(self) -> int:
        """All that are kept, also those of nodes that were forgotten and wait for ``expire``."""
        return self._records

    def count(self, node: int | None = None) -> int:
        """Records of `node`, or of all nodes; stale ones that were not collected yet are among them."""
        if node is None:
            return sum(self._counts[slot] for slot in self._of.values())
        return self._counts[self._of[node]] if node in self._of else 0

    def forget_node(self, node: int) -> None:
        """The node was emptied or removed: it holds nothing.  At once; the memory follows with ``expire``."""
        self.changes += self._slots.drop(node, self._swept + BUCKETS)

    def turn(self, node: int) -> None:
        """The node's process may be another one from now on: what is recorded of it so far has the mark OLD."""
        self._slots.turn(node)

    def visit(self, first: int, judges: Mapping[int, Judge], last: int = BUCKETS, work: int = 3_000) -> int:
        """Let the judges decide about their nodes' records in buckets `first` to `last`, the latter excluded.

        Args:
            judges: by node.
            work: how much to do: 1 for an empty bucket, 5 for another, 16 for a judged record; 3,000 take 0.5 ms (2026-11).

        Returns:
            The bucket with which to go on, at most `last`.
        """
        slots = {self._of[node]: node for node in judges if node in self._of}
        places: list[tuple[int, bytearray, int]] = []  # slot, bucket, where in it
        found: dict[int, tuple[list[bytes], list[int], list[int]]] = {slot: ([], [], []) for slot in slots}
        # a tag's first byte is the lower half of its slot: most records are passed over without a look at the rest
        lower_halves = bytearray(256)
        for slot in slots:
            lower_halves[slot & 255] = 1
        at = first
        while work > 0 and at < last:
            bucket = self._buckets[at]
            for number in itertools.compress(itertools.count(), bucket[TAG_AT::_SIZE].translate(lower_halves) if bucket else b""):
                start = number * _SIZE
                expires, tag = TAIL.unpack_from(bucket, start + TAIL_AT)
                slot = tag & SLOT
                if slot in slots:
                    places.append((slot, bucket, start))
                    keys, times, marks = found[slot]
                    keys.append(head_of(at) + bucket[start : start + KEY_BYTES - 2])
                    times.append(expires)
                    marks.append((tag ^ self._stamps[slot] & GENERATION) >> SOURCE_SHIFT)
                    work -= 16
            work -= 5 if bucket else 1
            at += 1
        new = {
            slot: iter(judges[slots[slot]](b"".join(keys), times, marks)) for slot, (keys, times, marks) in found.items() if keys
        }
        self._mark([(bucket, start, slot, next(new[slot])) for slot, bucket, start in places])
        return at

    def keys(self, node: int | None, now: int) -> Iterator[bytes]:
        """Yield the keys that `node` (None: any node) holds, fresh after `now`, concatenated, some thousands at a time.

        The table may change between two steps: what is added or removed meanwhile may be missed or included.
        """
        wanted = self._bits if node is None else [bit if bit == 1 << node else 0 for bit in self._bits]
        for first in range(0, BUCKETS, _STEP):
            found = []
            for number in range(first, first + _STEP):
                bucket = self._buckets[number]
                if bucket:
                    head = (number >> 2).to_bytes(2, "big")
                    found += [
                        head + rest
                        for rest, expires, tag in RECORD.iter_unpack(bucket)
                        if (expires > now or not expires) and wanted[tag & SLOT]
                    ]
            if found:
                yield b"".join(found if node is not None else dict.fromkeys(found))

    def expire(self, now: int, records: int = 4_000) -> int:
        """Collect what went stale long ago and what forgotten nodes left; returns how much that was.

        Looks at about `records` records, which takes 0.7 ms for 4,000 (2026-11), and goes on there with the next call.
        """
        before = self._records
        buckets = self._buckets
        at, last = self._swept, self._swept + BUCKETS
        while records > 0 and at < last:
            bucket = buckets[at % BUCKETS]
            if bucket:
                records -= len(bucket) // _SIZE
                self._sweep(at % BUCKETS, now - STALE_KEPT_S)
            records -= 1
            at += 1
        self._swept = at
        self._slots.collect(at)
        return before - self._records

    def slots(self) -> dict[int, tuple[int, int]]:
        """Slot -> node and a number that tells this use of the slot from others, for ``saved``."""
        return self._slots.uses()

    def buckets(self, first: int, count: int) -> tuple[bytearray, ...]:
        """Some of the buckets as they are, for ``saved``."""
        return self._buckets[first : first + count]

    @classmethod
    def restore(
        cls, records: memoryview, counts: Sequence[int], slots: Mapping[int, int], keys_limit: int = KEYS_LIMIT, as_of: int = 0
    ) -> Holdings:
        """A table from the buckets of another.  What happened since is not known: each record is SEEN, and has the mark OLD.

        Args:
            records: of all buckets, one bucket after the other.
            counts: how many of them each bucket has.
            slots: slot -> node; the records of other slots are collected by and by.
            as_of: when that one was saved.

        Raises:
            ValueError: `records` and `counts` differ, or a slot's or node's number is impossible.
        """
        if len(counts) != BUCKETS or sum(counts) * _SIZE != len(records):
            raise ValueError(f"{len(records)} bytes for {sum(counts)} records in {len(counts)} buckets")
        if any(not (0 <= slot < SLOTS and 0 <= node < SLOTS) for slot, node in slots.items()):
            raise ValueError("the number of a slot or node is too large")
        if len(set(slots.values())) != len(slots):
            raise ValueError("a node with two slots")
        table = cls(keys_limit)
        table.as_of = as_of
        at = 0
        for number, count in enumerate(counts):
            if count:
                table._buckets[number].extend(records[at : (at := at + count * _SIZE)])
                lower(table._buckets[number])
        table._records = sum(counts)
        for slot, count in count_slots(records).items():
            table._counts[slot] += count
        table._slots.restore([slot for slot in range(SLOTS) if table._counts[slot]], slots, BUCKETS)
        for node in slots.values():
            table.turn(node)
        while table._records > keys_limit:
            table._make_room(table._next_bucket())
        return table

    def _sweep(self, number: int, stale: int) -> None:
        bucket = self._buckets[number]
        bits = self._bits
        doomed = [
            at for at, (expires, tag) in enumerate(TAILS.iter_unpack(bucket)) if 0 < expires <= stale or not bits[tag & SLOT]
        ]
        for at in reversed(doomed):  # from the end, so that what is swapped in is known to stay
            self._cut(bucket, at * _SIZE)
        if doomed:
            _shrink(bucket)

    def _mark(self, decided: Sequence[tuple[bytearray, int, int, int]]) -> None:
        """Give marks to the records of some buckets: bucket, where in it, slot, new mark; in order."""
        for bucket, at, slot, mark in reversed(decided):  # from the end, as in `_sweep`
            if mark == GONE:
                self._cut(bucket, at)
                _shrink(bucket)
            else:
                TAG.pack_into(bucket, at + TAG_AT, slot | mark << SOURCE_SHIFT ^ self._stamps[slot] & GENERATION)
        self.changes += bool(decided)

    def _find(self, bucket: bytearray, rest: bytes, slot: int) -> int:
        """Where the record of this key and slot begins, or -1."""
        at = bucket.find(rest)
        while at >= 0:
            if at % _SIZE:
                at = bucket.find(rest, at + 1)
            elif TAIL.unpack_from(bucket, at + TAIL_AT)[1] & SLOT == slot:
                return at
            else:
                at = bucket.find(rest, at + _SIZE)
        return -1

    def _cut(self, bucket: bytearray, at: int) -> None:
        """Remove one record: the last one takes its place."""
        self._counts[TAIL.unpack_from(bucket, at + TAIL_AT)[1] & SLOT] -= 1
        self._records -= 1
        self.changes += 1
        bucket[at : at + _SIZE] = bucket[-_SIZE:]
        del bucket[-_SIZE:]

    def _make_room(self, bucket: bytearray) -> None:
        """Remove the record that is worth least: a forgotten node's, or of unknown freshness, or stale soonest."""
        bits = self._bits
        ranks = [expires + 1 if bits[tag & SLOT] else 0 for expires, tag in TAILS.iter_unpack(bucket)]
        self._cut(bucket, ranks.index(min(ranks)) * _SIZE)

    def _next_bucket(self) -> bytearray:
        """The next one in turn that is not empty; there must be one."""
        while True:
            self._hand = (self._hand + 1) % BUCKETS
            if self._buckets[self._hand]:
                return self._buckets[self._hand]

    def _new_slot(self, node: int) -> int:
        if self._slots.are_used_up:
            self.expire(0, self._records + BUCKETS)  # half a second, after 4,096 nodes came and went within one sweep
        return self._slots.take(node, self._swept)


def _shrink(bucket: bytearray) -> None:
    """Give memory back: a bytearray does that by itself only when it is half empty."""
    kept = bytes(bucket)
    bucket.clear()
    bucket += kept

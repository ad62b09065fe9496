"""The ring: which node owns a key, and who comes next if that node cannot serve.

Every node is put on a circle at pseudo-random points that depend on its name and on nothing else; a key belongs to the
node whose point is nearest.  So a node that leaves hands over its own keys and no other, a node that comes takes only
what it will own, and neither the order of the nodes nor their addresses matter.

The circle is cut into 1,024 sectors by the first bits of the key's hash, and a sector is filled on its first use.  In
each, a node of weight 1 has four points, which are the four words of one 128-bit hash of its name and the sector's
number.  4,096 points per node, each of which owns half of the gap to either side, spread keys as evenly as 8,192 that
own the whole gap before them (share's standard deviation 1.1 %), with half of the work.

Left out: which nodes are alive (route.py), what the key is (http/url.py).  No other module imports mmh3.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import mmh3

SECTOR_BITS = 10
SECTORS = 1 << SECTOR_BITS
POSITION_BITS = 20  # two points of one sector meet seldom enough (0.4 % of them at 1,000 nodes) not to be felt
POINTS = 4  # per sector and unit of weight; one mmh3 digest
MAX_MEMBERS = 1 << (32 - POSITION_BITS)  # position and member share a 32-bit lane
MAX_WEIGHT = 256

_LANE = 4  # bytes
_POSITION_MASK = (1 << POSITION_BITS) - 1
_POSITION_SHIFT = 32 - SECTOR_BITS - POSITION_BITS
_SECTOR_SHIFT = 32 - SECTOR_BITS
_FRACTION_SEED = 0x5107
_DITHER_SEED = 0x10000  # far from the sectors' seeds
_WORD = 2.0**-32

_hash = mmh3.mmh3_32_uintdigest
_digest = mmh3.mmh3_x64_128_digest


class Member(NamedTuple):
    """One node as routing sees it.

    name: its identity.  weight: its share relative to the others', 0 to 256; 0 owns nothing.
    """

    name: str
    weight: float


class Sector(NamedTuple):
    """The points in one part of the circle, as 32-bit words: a position above, a member's rank by name below.

    points: sorted.
    edges: as many; the position is the last one that belongs to this point.
    spares: one point each of the members that have no point here by their weight; sorted.
    """

    points: array[int]
    edges: array[int]
    spares: array[int]


def key_fraction(key: bytes) -> float:
    """Return a number in [0, 1) that depends on ``key`` only and is independent of its place on the ring."""
    return _hash(key, _FRACTION_SEED) * _WORD


def fingerprint(text: str) -> str:
    """Return 16 hex digits that stand for ``text``."""
    return _digest(text.encode()).hex()[:16]


class Ring:
    """A consistent hash over nodes.  Immutable, but for the sectors that are filled on first use."""

    __slots__ = ("_edges", "_given", "_member_bits", "_member_mask", "_members", "_names", "_sectors", "_wholes")

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = tuple(members)
        if len({member.name for member in members}) != len(members):
            raise ValueError("two members of a ring have the same name")
        if len(members) > MAX_MEMBERS:
            raise ValueError(f"{len(members)} members; a ring has at most {MAX_MEMBERS}")
        for name, weight in members:
            if not 0 <= weight <= MAX_WEIGHT:
                raise ValueError(f"the weight of {name} is {weight}; it must be 0 to {MAX_WEIGHT}")
        weighted = [index for index, member in enumerate(members) if member.weight > 0]
        # Ranks go by name, so that points at one position are ordered alike whatever the order of the members.
        self._given = sorted(weighted, key=lambda index: members[index].name)
        self._names = [(members[index].name.encode(), members[index].weight * POINTS) for index in self._given]
        self._wholes = all(points == POINTS for _, points in self._names)
        self._member_bits = max(1, (len(self._given) - 1).bit_length())
        self._member_mask = (1 << self._member_bits) - 1
        self._sectors: list[Sector | None] = [None] * SECTORS
        self._edges: list[array[int] | None] = [None] * SECTORS

    @classmethod
    def build(cls, members: Sequence[Member]) -> Ring:
        """Make a ring of ``members``; indices returned later are indices into this sequence.

        Raises:
            ValueError: A name occurs twice, a weight is out of range, or there are more than MAX_MEMBERS.
        """
        return cls(members)

    def owner(self, key: bytes) -> int:
        """Return the index of the member that owns ``key``; -1 if no member has a weight."""
        place = _hash(key)
        number = place >> _SECTOR_SHIFT
        edges = self._edges[number] or self._fill(number).edges
        if not edges:
            return -1
        position = place >> _POSITION_SHIFT & _POSITION_MASK
        return self._given[edges[bisect_left(edges, position << self._member_bits)] & self._member_mask]

    def owners(self, key: bytes, count: int) -> list[int]:
        """Return the first ``count`` distinct members in failover order, the owner first.

        The second is the one that would own the key if the first were not there, and so on.  Fewer are returned only
        if fewer have a weight.
        """
        place = _hash(key)
        number = place >> _SECTOR_SHIFT
        sector = self._sectors[number] or self._fill(number)
        position = place >> _POSITION_SHIFT & _POSITION_MASK
        bits, mask, given = self._member_bits, self._member_mask, self._given
        count = min(count, len(given))
        found: dict[int, None] = {}
        for points in (sector.points, sector.spares):
            right = bisect_left(points, position << bits)
            left = right - 1
            end = len(points)
            while len(found) < count and (left >= 0 or right < end):
                # Of two equally near points the left one wins, as in `edges`.
                if right == end or (
                    left >= 0 and position - (points[left] >> bits) <= (points[right] >> bits) - position
                ):
                    found[given[points[left] & mask]] = None
                    left -= 1
                else:
                    found[given[points[right] & mask]] = None
                    right += 1
        return list(found)

    def fraction(self, key: bytes) -> float:
        """Return a number in [0, 1), by which a returning node takes its keys back little by little."""
        return key_fraction(key)

    def digest(self) -> str:
        """Return a short fingerprint: equal for two rings that give every key to the node of the same name."""
        return fingerprint("ring\n" + "\n".join(sorted(f"{m.name} {float(m.weight)!r}" for m in self._members)))

    def place(self, key: bytes) -> int:
        """Return the 32-bit hash of ``key``, for people to compare."""
        return _hash(key)

    def shares(self) -> list[float]:
        """Return the exact part of the key space that each member owns.

        Fills every sector: 30 ms for 16 members, a second or two for 1,000.  For reports, not for requests.
        """
        widths = [0] * len(self._given)
        bits, mask = self._member_bits, self._member_mask
        for number in range(SECTORS):
            before = -1
            for edge in (self._sectors[number] or self._fill(number)).edges:
                widths[edge & mask] += (edge >> bits) - before
                before = edge >> bits
        shares = [0.0] * len(self._members)
        for index, width in zip(self._given, widths, strict=True):
            shares[index] = width / (SECTORS << POSITION_BITS)
        return shares

    def _fill(self, number: int) -> Sector:
        """Place the points of sector ``number``.  1,000 members: 0.65 ms, and 0.7 s for all sectors (2026-11)."""
        words: list[bytes] = []
        ranks: list[int] = []
        spare_words: list[bytes] = []
        spare_ranks: list[int] = []
        if self._wholes:
            words = [_digest(name, number) for name, _ in self._names]
            ranks = [rank for rank in range(len(words)) for _ in range(POINTS)]
        else:
            for rank, (name, wanted) in enumerate(self._names):
                # A part of a point is a point in that part of the sectors.
                count = int(wanted + _hash(name, _DITHER_SEED + number) * _WORD)
                if count:
                    ranks += [rank] * count
                    words += _words(name, number, count)
                else:
                    spare_ranks.append(rank)
                    spare_words += _words(name, number, 1)
        points = self._sorted(words, ranks)
        spares = self._sorted(spare_words, spare_ranks)
        if not points:
            points, spares = spares, points
        sector = Sector(points, self._edges_of(points), spares)
        self._sectors[number] = sector
        self._edges[number] = sector.edges
        return sector

    def _sorted(self, words: list[bytes], ranks: list[int]) -> array[int]:
        """Join position and rank in each 32-bit lane and sort.

        The lanes are joined as one large integer, which is C speed; values stay below 2**30 up to 1,024 members, for
        which CPython's sort has a fast path.
        """
        positions = int.from_bytes(b"".join(words), "little") & _lanes(_POSITION_MASK, len(ranks))
        joined = positions << self._member_bits | int.from_bytes(array("I", ranks).tobytes(), "little")
        return array("I", sorted(_unpack(joined, len(ranks))))

    def _edges_of(self, points: array[int]) -> array[int]:
        """Return, for each point, the last position that is not nearer to the next; the last point has the rest."""
        count = len(points)
        if not count:
            return array("I")
        joined = int.from_bytes(points.tobytes(), "little")
        positions = joined >> self._member_bits & _lanes(_POSITION_MASK, count)
        middles = (positions + (positions >> 8 * _LANE)) >> 1 & _lanes(_POSITION_MASK, count - 1)
        middles |= _POSITION_MASK << 8 * _LANE * (count - 1)
        return _unpack(middles << self._member_bits | joined & _lanes(self._member_mask, count), count)


def _words(name: bytes, number: int, count: int) -> list[bytes]:
    """Return ``count`` 32-bit words of hash, in pieces: the first ones stay the same when ``count`` grows."""
    pieces = [_digest(name, number + SECTORS * turn) for turn in range((count + POINTS - 1) // POINTS)]
    pieces[-1] = pieces[-1][: _LANE * (count - POINTS * (len(pieces) - 1))]
    return pieces


def _lanes(value: int, count: int) -> int:
    """Return ``value`` in each of ``count`` 32-bit lanes."""
    return int.from_bytes(value.to_bytes(_LANE, "little") * count, "little")


def _unpack(joined: int, count: int) -> array[int]:
    """Split ``count`` 32-bit lanes.  The little end comes first on every machine this runs on."""
    lanes = array("I")
    lanes.frombytes(joined.to_bytes(_LANE * count, "little"))
    return lanes

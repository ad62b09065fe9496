"""The ring: which node owns a key, and who comes next if that node cannot serve.

Every node is put on a circle at pseudo-random points that depend on its name and on nothing else; a key belongs to the
node whose point is nearest.  So a node that leaves hands over its own keys and no other, a node that comes takes only
what it will own, and neither the order of the nodes nor their addresses matter.

The circle is really 512 small ones, the sectors; the first bits of the key's hash say which.  A sector is filled on its
first use.  In each, a node of weight 1 has eight points; 128-bit hashes of its name and the sector's number say where.
Such 4,096 points per node, each of which owns half of the gap to either side, spread keys as evenly as 8,192 that own
the whole gap before them (standard deviation of a share: 1.1 % of it), with half of the work.  Fewer points in more
sectors would be a little faster, but would shorten the share of nodes whose weight is a fraction.

Left out: which nodes are alive (route.py), what the key is (http/url.py).  No other module imports mmh3.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import mmh3

from cachelb.http.octets import COMPILED

if TYPE_CHECKING:
    from mypy_extensions import i64


SECTOR_BITS: Final = 9
SECTORS: Final = 1 << SECTOR_BITS
POINTS: Final = 8  # per sector and unit of weight
POSITION_BITS: Final = 20  # two points of one sector meet seldom enough (0.8 % of them at 1,000 nodes) not to be felt
MAX_MEMBERS: Final = 1 << (32 - POSITION_BITS)  # position and member share a 32-bit lane
MAX_WEIGHT: Final = 256

_LANE: Final = 4  # bytes
_WORDS: Final = 4  # lanes in one digest
# Tables of edges per sector: up to five steps of `owner`'s search done by an index, but no more tables than keep the cache warm:
# 16,384 of them cost 0.4 us where each key is another one, beside 3 nodes (2026-11)
_CUT_BITS_MAX: Final = 5
_EDGES_PER_TABLE: Final = 64
_SECTOR_SHIFT: Final = 32 - SECTOR_BITS
_POSITION_SHIFT: Final = _SECTOR_SHIFT - POSITION_BITS
_POSITION_MASK: Final = (1 << POSITION_BITS) - 1
_FRACTION_SEED: Final = 0x5107
_DITHER_SEED: Final = 0x5A170000  # far from the seeds of points
_WORD: Final = 2.0**-32

_hash: Final = mmh3.mmh3_32_uintdigest
_digest: Final = mmh3.mmh3_x64_128_digest


class Member(NamedTuple):
    """One node as routing sees it.

    name: its identity.  weight: its share relative to the others', 0 to 256; 0 owns nothing.
    """

    name: str
    weight: float


class _Sector(NamedTuple):
    """Points of one sector, as sorted 32-bit words: a position above, a member's rank by name below.

    spares: one point each of the members that, by a weight below 1, have none in `points`.
    """

    points: array[int]
    spares: array[int]


class _Turn(NamedTuple):
    """The first, second, ... digest that members take points from, for those that have so many points.

    rooms: how many points each still has to place; below four only that many, and a part of a point in that part of
        the sectors.
    ranks: each rank four times if all have room for four, else None.
    """

    names: list[bytes]
    owners: list[int]
    rooms: list[float]
    ranks: array[int] | None


def key_fraction(key: bytes) -> float:
    """Return a number in [0, 1) that depends on ``key`` only and is independent of its place on the ring."""
    return _hash(key, _FRACTION_SEED) * _WORD


def fingerprint(text: str) -> str:
    """Return 16 hex digits that stand for ``text``."""
    return _digest(text.encode()).hex()[:16]


class Ring:
    """A consistent hash over nodes.  Immutable, but for the sectors that are filled on first use."""

    __slots__ = ("_cut_bits", "_given", "_members", "_rank_bits", "_rank_mask", "_sectors", "_table_shift", "_tables", "_turns")

    def __init__(self, members: Sequence[Member]) -> None:
        _check(members)
        self._members = tuple(members)
        weighted = [index for index, member in enumerate(members) if member.weight > 0]
        # Ranks go by name, so that points at one position are ordered alike whatever the order of the members.
        self._given = sorted(weighted, key=lambda index: members[index].name)
        self._rank_bits = max(1, (len(self._given) - 1).bit_length())
        self._rank_mask = (1 << self._rank_bits) - 1
        self._turns = _turns([members[index] for index in self._given])
        self._sectors: list[_Sector | None] = [None] * SECTORS
        # What `owner` needs of the sectors: where the owner changes, see `_edges_of`; each sector's in some parts.
        self._cut_bits = min(_CUT_BITS_MAX, (len(weighted) * POINTS // _EDGES_PER_TABLE).bit_length())
        self._table_shift = _SECTOR_SHIFT - self._cut_bits
        # sorted 32-bit words; interpreted, arrays of them
        self._tables: list[bytes | None] = [None] * (SECTORS << self._cut_bits)

    @classmethod
    def build(cls, members: Sequence[Member]) -> Ring:
        """Make a ring of ``members``; indices returned later are indices into this sequence.

        Raises:
            ValueError: A name occurs twice, a weight is out of range, or there are more than MAX_MEMBERS.
        """
        return cls(members)

    def owner(self, key: bytes) -> int:
        """Return the index of the member that owns ``key``; -1 if no member has a weight.

        Compiled 0.14 us; interpreted 0.4 us with 16 members, 0.7 us with 1,000 (2026-11).
        """
        place = _hash(key)
        edges = self._tables[place >> self._table_shift] or self._fill_table(place >> self._table_shift)
        if not edges:
            return -1
        edge = _edge_from(edges, (place >> _POSITION_SHIFT & _POSITION_MASK) << self._rank_bits)
        return self._given[edge & self._rank_mask]

    def owners(self, key: bytes, count: int) -> list[int]:
        """Return the first ``count`` distinct members in failover order, the owner first.

        The second is the one that would own the key if the first were not there, and so on.  Fewer are returned only
        if fewer have a weight.
        """
        place = _hash(key)
        sector = self._sectors[place >> _SECTOR_SHIFT] or self._fill(place >> _SECTOR_SHIFT)
        position = place >> _POSITION_SHIFT & _POSITION_MASK
        count = min(count, len(self._given))
        found = self._nearest(sector.points, position, count)
        if len(found) < count:
            found += self._nearest(sector.spares, position, count - len(found))
        return found

    def fraction(self, key: bytes) -> float:
        """Return a number in [0, 1), by which a returning node takes its keys back little by little."""
        return key_fraction(key)

    def place(self, key: bytes) -> int:
        """Return the 32-bit hash of ``key``, for people to compare."""
        return _hash(key)

    def digest(self) -> str:
        """Return a short fingerprint: equal for two rings that give every key to the node of the same name."""
        return fingerprint("ring\n" + "\n".join(sorted(f"{m.name} {float(m.weight)!r}" for m in self._members)))

    def shares(self) -> list[float]:
        """Return the exact part of the key space that each member owns.

        Fills every sector: 20 ms for 16 members, over a second for 1,000.  For reports, not for requests.
        """
        widths = [0] * len(self._given)
        bits, mask = self._rank_bits, self._rank_mask
        for number in range(SECTORS):
            before = -1
            sector = self._sectors[number] or self._fill(number)
            for edge in _edges_of(sector.points, bits):
                widths[edge & mask] += (edge >> bits) - before
                before = edge >> bits
        shares = [0.0] * len(self._members)
        for index, width in zip(self._given, widths, strict=True):
            shares[index] = width / (SECTORS << POSITION_BITS)
        return shares

    def _nearest(self, points: array[int], position: int, count: int) -> list[int]:
        """Return up to ``count`` distinct members by the distance of their points from ``position``."""
        bits, mask = self._rank_bits, self._rank_mask
        end = len(points)
        # All indices are negative, -end to -1: the circle closes by itself.
        right = bisect_left(points, position << bits) - end or -end
        left = right - 1 if right > -end else -1
        found: dict[int, None] = {}  # in the order of insertion
        for _ in range(end):
            if len(found) == count:
                break
            on_left, on_right = points[left], points[right]
            # Of two equally near points the left one wins, as in `_edges_of`.
            if position - (on_left >> bits) & _POSITION_MASK <= (on_right >> bits) - position & _POSITION_MASK:
                node = self._given[on_left & mask]
                left = left - 1 if left > -end else -1
            else:
                node = self._given[on_right & mask]
                right = right + 1 if right < -1 else -end
            found[node] = None
        return list(found)

    def _fill(self, number: int) -> _Sector:
        """Place the points of one sector.  1,000 members: 1.4 ms, 0.7 s for all sectors (2026-11)."""
        words: list[bytes] = []
        ranks = array("I")
        spare_words: list[bytes] = []
        spare_ranks = array("I")
        for turn, due in enumerate(self._turns):
            seed = turn * SECTORS + number
            if due.ranks is not None:
                words += [_digest(name, seed) for name in due.names]
                ranks += due.ranks
                continue
            for name, rank, room in zip(due.names, due.owners, due.rooms, strict=True):
                count = _WORDS if room >= _WORDS else int(room + _hash(name, _DITHER_SEED + number) * _WORD)
                words.append(_digest(name, seed)[: _LANE * count])
                ranks.extend([rank] * count)
                if not count and not turn:
                    spare_words.append(_digest(name, seed)[:_LANE])
                    spare_ranks.append(rank)
        points = _join(words, ranks, self._rank_bits)
        spares = _join(spare_words, spare_ranks, self._rank_bits)
        # A sector in which nobody has a point belongs to those that might have had one.
        sector = _Sector(points, spares) if points else _Sector(spares, points)
        self._sectors[number] = sector
        return sector

    def _fill_table(self, number: int) -> bytes:
        """Make the tables of the sector that has table ``number``."""
        cuts = 1 << self._cut_bits
        first = number & -cuts
        sector = self._sectors[number >> self._cut_bits] or self._fill(number >> self._cut_bits)
        edges = _edges_of(sector.points, self._rank_bits)
        width = (_POSITION_MASK + 1) // cuts << self._rank_bits
        for cut in range(cuts):
            begin = bisect_left(edges, cut * width)
            end = bisect_left(edges, (cut + 1) * width)
            # The first edge beyond belongs to it, too: it has the rest of the table's positions.
            table = edges[begin : end + 1]
            self._tables[first + cut] = table.tobytes() if COMPILED else cast(bytes, table)
        return self._tables[number] or b""


def _check(members: Sequence[Member]) -> None:
    if len({member.name for member in members}) != len(members):
        raise ValueError("two members of a ring have the same name")
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"{len(members)} members; a ring has at most {MAX_MEMBERS}")
    for name, weight in members:
        if not 0 <= weight <= MAX_WEIGHT:
            raise ValueError(f"the weight of {name} is {weight}; it must be 0 to {MAX_WEIGHT}")


def _turns(ranked: Sequence[Member]) -> list[_Turn]:
    """Return what each turn of placing points has to place."""
    turns: list[_Turn] = []
    while True:
        placed = len(turns) * _WORDS
        due = [(rank, member) for rank, member in enumerate(ranked) if member.weight * POINTS > placed]
        if not due:
            return turns
        rooms = [member.weight * POINTS - placed for _, member in due]
        turns.append(
            _Turn(
                names=[member.name.encode() for _, member in due],
                owners=[rank for rank, _ in due],
                rooms=rooms,
                ranks=array("I", [rank for rank, _ in due for _ in range(_WORDS)]) if min(rooms) >= _WORDS else None,
            )
        )


def _join(words: list[bytes], ranks: array[int], rank_bits: int) -> array[int]:
    """Join the position in the low bits of each word with the rank beside it, and sort.

    All lanes are joined at once as one large integer, which is C speed; up to 1,024 members the results stay below
    2**30, for which CPython's sort has a fast path.
    """
    positions = int.from_bytes(b"".join(words), "little") & _lanes(_POSITION_MASK, len(ranks))
    joined = positions << rank_bits | int.from_bytes(ranks.tobytes(), "little")
    return array("I", sorted(_unpack(joined, len(ranks))))


def _edges_of(points: array[int], rank_bits: int) -> array[int]:
    """Return where the owner changes: words of the last position, from the left, of each part and its owner's rank.

    Between two points that is half way, the middle itself belonging to the left one.  The part across the end of the
    circle is two edges, one of them at the last position of all.
    """
    count = len(points)
    if not count:
        return points
    joined = int.from_bytes(points.tobytes(), "little")
    positions = joined >> rank_bits & _lanes(_POSITION_MASK, count)
    middles = (positions + (positions >> 8 * _LANE)) >> 1 & _lanes(_POSITION_MASK, count - 1)
    edges = _unpack(middles << rank_bits | joined & _lanes((1 << rank_bits) - 1, count - 1), count - 1)
    first, last = points[0], points[-1]
    rank_mask = (1 << rank_bits) - 1
    across = ((first >> rank_bits) + (last >> rank_bits) + _POSITION_MASK + 1) >> 1
    if across <= _POSITION_MASK:
        edges.append(across << rank_bits | last & rank_mask)
        edges.append(_POSITION_MASK << rank_bits | first & rank_mask)
    else:
        edges.insert(0, (across & _POSITION_MASK) << rank_bits | last & rank_mask)
        edges.append(_POSITION_MASK << rank_bits | last & rank_mask)
    return edges


def _edge_from(edges: bytes, word: i64) -> i64:
    """The first word in a table that is not below ``word``, which is not above all of them.

    Compiled, 0.3 us less than ``bisect_left``, which makes an object of each word that it looks at (2026-11).
    """
    return _edge_from_bytes(edges, word) if COMPILED else edges[bisect_left(edges, word)]


def _edge_from_bytes(edges: bytes, word: i64) -> i64:
    low: i64 = 0
    high: i64 = len(edges) // _LANE - 1
    while low < high:
        middle: i64 = (low + high) >> 1
        if _word_at(edges, middle) < word:
            low = middle + 1
        else:
            high = middle
    return _word_at(edges, low)


def _word_at(edges: bytes, place: i64) -> i64:
    at: i64 = place * _LANE
    first: i64 = edges[at]
    second: i64 = edges[at + 1]
    third: i64 = edges[at + 2]
    last: i64 = edges[at + 3]
    return first | second << 8 | third << 16 | last << 24


def _lanes(value: int, count: int) -> int:
    """Return ``value`` in each of ``count`` 32-bit lanes."""
    return int.from_bytes(value.to_bytes(_LANE, "little") * count, "little")


def _unpack(joined: int, count: int) -> array[int]:
    """Split the lowest ``count`` 32-bit lanes.  Machines whose big end comes first are not supported."""
    lanes = array("I")
    lanes.frombytes((joined & (1 << 8 * _LANE * count) - 1).to_bytes(_LANE * count, "little"))
    return lanes

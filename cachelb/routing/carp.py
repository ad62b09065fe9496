"""CARP exactly as Squid computes it, so that a farm that used ``cache_peer ... carp`` keeps its owners.

Squid's CARP is not the textbook's.  It hashes the key once *per peer*, continuing from the value that the previous
peer left, in the order of rising weight and, among equals, of squid.conf.  So the order of the nodes matters here, and
taking one out of the list moves many keys of the others (a dead one that stays in the list moves only its own).  New
farms are better off with the ring.

Left out: ``carp-key``; the key is the whole URL, which is Squid's default.

Source: Squid 5.7, carp.cc (the same arithmetic up to the current release).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cachelb.routing.ring import Member, fingerprint, key_fraction

_WORD_MASK = 0xFFFFFFFF
_MIX = 0x62531965


class Carp:
    """Squid's cache array routing over nodes.  Immutable."""

    __slots__ = ("_members", "_order", "_peers", "_shares", "multipliers")

    def __init__(self, members: Sequence[Member]) -> None:
        if len({member.name for member in members}) != len(members):
            raise ValueError("two members have the same name")
        self._members = tuple(members)
        self._order = sorted(range(len(members)), key=lambda index: members[index].weight)
        factors = _load_factors([members[index].weight for index in self._order])
        multipliers = _multipliers(factors)
        # (hash, multiplier, index) in the order in which the key's hash passes through them
        self._peers = [
            (peer_hash(members[index].name.encode()), multiplier, index)
            for index, multiplier in zip(self._order, multipliers, strict=True)
        ]
        self._shares = _by_index(self._order, factors)
        self.multipliers = _by_index(self._order, multipliers)

    @classmethod
    def build(cls, members: Sequence[Member]) -> Carp:
        """Make the table of ``members``, which are in the order of the squid.conf whose owners are wanted.

        Raises:
            ValueError: A name occurs twice.
        """
        return cls(members)

    def owner(self, key: bytes) -> int:
        """Return the index of the member that Squid's CARP selects for ``key``; -1 if no member has a weight."""
        best = -1
        best_score = -1.0
        for combined, (_, multiplier, index) in zip(self.combined(key), self._peers, strict=True):
            score = combined * multiplier
            if score > best_score and multiplier > 0.0:
                best, best_score = index, score
        return best

    def owners(self, key: bytes, count: int) -> list[int]:
        """Return the first ``count`` members in failover order: the one that Squid selects if those before are down."""
        scored = [
            (-combined * multiplier, place, index)
            for place, (combined, (_, multiplier, index)) in enumerate(
                zip(self.combined(key), self._peers, strict=True)
            )
            if multiplier > 0.0
        ]
        scored.sort()
        return [index for _, _, index in scored[:count]]

    def combined(self, key: bytes) -> list[int]:
        """Return the 32-bit hash of ``key`` with each peer, in the order of rising weight.

        This is slow by its nature: the key is hashed byte by byte once per peer, 0.09 us each (a URL of 48 bytes: 14 us
        with 3 peers, 70 us with 16; 2026-11).  Callers keep the owners of a URL.
        """
        signed = memoryview(key).cast("b")  # Squid adds `char`, which is signed on the machines it runs on
        value = 0
        found = []
        for name_hash, _, _ in self._peers:
            value = _advance(value, signed)
            found.append(_scramble(value ^ name_hash))
        return found

    def fraction(self, key: bytes) -> float:
        """Return a number in [0, 1), by which a returning node takes its keys back little by little."""
        return key_fraction(key)

    def digest(self) -> str:
        """Return a short fingerprint: equal for two tables that give every key to the node of the same name."""
        members = [self._members[index] for index in self._order]
        return fingerprint("carp\n" + "\n".join(f"{m.name} {float(m.weight)!r}" for m in members))

    def place(self, key: bytes) -> int:
        """Return the key's 32-bit hash before any peer's is mixed in, for people to compare."""
        return _advance(0, memoryview(key).cast("b"))

    def shares(self) -> list[float]:
        """Return the part of the keys that each member is meant to own."""
        return list(self._shares)


def peer_hash(name: bytes) -> int:
    """Return Squid's hash of a peer's name (``name=``, else its host)."""
    return _scramble(_advance(0, memoryview(name).cast("b")))


def _advance(value: int, signed: Sequence[int] | memoryview) -> int:
    """Take the hash ``value`` through bytes: per byte, ``value += rotl(value, 19) + byte``."""
    for byte in signed:
        # value * (1 + 2**19) + (value >> 13) is value + rotl(value, 19), modulo 2**32; rotl spelled out takes 0.13 us,
        # and so does keeping the value in two halves of one CPython digit each (2026-11)
        value = (value * 0x80001 + (value >> 13) + byte) & _WORD_MASK
    return value


def _scramble(value: int) -> int:
    """Do ``value += value * 0x62531965; value = rotl(value, 21)``."""
    value = value * (_MIX + 1) & _WORD_MASK
    return (value << 21 | value >> 11) & _WORD_MASK


def _load_factors(weights: list[float]) -> list[float]:
    """Return each weight's part of the sum; parts below a thousandth count as nothing, as in Squid.

    Where that would leave nothing at all (more than 1,000 equal nodes, for which Squid divides by zero) they count.
    """
    total = sum(weights)
    if total <= 0:
        return [0.0] * len(weights)
    factors = [weight / total for weight in weights]
    floored = [0.0 if math.floor(factor * 1000.0) == 0.0 else factor for factor in factors]
    return floored if any(floored) else factors


def _multipliers(factors: list[float]) -> list[float]:
    """Return the score multipliers X_k for load factors P_k in rising order.

    Members of load factor 0 are left out of the recurrence and get 0; in Squid they make every X a division by zero.

    Source: carp.cc; draft-vinod-carp-v1-03, section 3.4.
    """
    multipliers = [0.0] * len(factors)
    loaded = [place for place, factor in enumerate(factors) if factor > 0.0]
    product = 1.0
    last_factor = last = 0.0
    for done, place in enumerate(loaded):
        left = float(len(loaded) - done)
        current = ((left * (factors[place] - last_factor)) / product + last**left) ** (1.0 / left)
        multipliers[place] = current
        product *= current
        last = current
        last_factor = factors[place]
    return multipliers


def _by_index(order: list[int], values: list[float]) -> list[float]:
    """Put ``values``, which follow ``order``, into the order of the members."""
    found = [0.0] * len(order)
    for index, value in zip(order, values, strict=True):
        found[index] = value
    return found

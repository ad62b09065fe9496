"""What the supervisor and the workers must agree on about templates: which clients count as one, which nodes keep theirs.

A template says which node the clients of one masked address go to.  Each group of ``[[affinity]]`` has its own.

Left out: where templates are kept (``affinity.templates``), how a worker knows of them (``relay.templates``).
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from cachelb.routing.pool import Pool
from cachelb.routing.route import ADMIT_NONE

if TYPE_CHECKING:
    from cachelb.config_policy import AffinityConfig

T = TypeVar("T")

_SPREAD: Final = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: neighbours are far from each other
_ALL: Final = (1 << 64) - 1


class Group(NamedTuple):
    """A group as ``[[affinity]]`` has it.

    expires_on_drain: a node that takes nothing new loses its clients, too; returns: clients go back to a node that has died.
    """

    name: str
    netmask_v4: int = 32
    netmask_v6: int = 64
    timeout_s: float = 1800.0
    expires_on_drain: bool = False
    returns: bool = False

    def has_clients_of(self, other: Group) -> bool:
        """Whether the same clients count as one."""
        return (self.netmask_v4, self.netmask_v6) == (other.netmask_v4, other.netmask_v6)

    def key(self, address: bytes) -> int:
        """What the clients of one masked address have in common: above 0 unless that is 0.0.0.0, and not the other family's.

        A number, for it takes 32 bytes where bytes take 48 (48 and 64 with IPv6), and there may be a million.

        Args:
            address: 4 or 16 bytes.
        """
        if len(address) == 4:
            return (int.from_bytes(address, "big") >> (32 - self.netmask_v4)) << 1
        return (int.from_bytes(address, "big") >> (128 - self.netmask_v6)) << 1 | 1

    def address(self, key: int) -> bytes:
        """The masked address that a key was made of."""
        if key & 1:
            return ((key >> 1) << (128 - self.netmask_v6)).to_bytes(16, "big")
        return ((key >> 1) << (32 - self.netmask_v4)).to_bytes(4, "big")

    def network(self, key: int) -> str:
        """The same for people: 10.1.0.0/16; without a prefix where that is one address."""
        address = ip_address(self.address(key))
        length = self.netmask_v6 if key & 1 else self.netmask_v4
        return str(address) if length == address.max_prefixlen else f"{address}/{length}"


def group_of(config: AffinityConfig) -> Group:
    """A section as a group."""
    return Group(
        config.name,
        config.netmask_v4,
        config.netmask_v6,
        config.timeout_s,
        config.expire_on_drain,
        config.after_death == "return",
    )


def packed(ip: str) -> bytes:
    """An IP address as 4 or 16 bytes; an IPv4 one that is written as IPv6 as 4.

    Raises:
        ValueError: It is none.
    """
    address = ip_address(ip.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bytes((mapped or address).packed)


def keepers(pool: Pool[T], slot: Callable[[T], int], expires_on_drain: bool) -> dict[int, int]:
    """The nodes of a pool whose templates hold, by slot: where in the pool they are.

    Those in service, and those that take nothing new (they drain, or have no weight here), as long as their clients may stay.
    """
    serving = frozenset(pool.serving)
    return {
        slot(target): index
        for index, target in enumerate(pool.targets)
        if index in serving or (pool.admits[index] != ADMIT_NONE and not expires_on_drain)
    }


def is_home_again(key: int, admits: float) -> bool:
    """Whether a client goes back to a node that has died and is in service again: one after the other while it returns slowly."""
    return admits > ((key * _SPREAD) & _ALL) / (_ALL + 1)

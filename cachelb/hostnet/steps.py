"""What has to be done on the host so that it is as a configuration asks, and what stands in the way.

Left out: how it is found out and done (``netlink``, ``nft``).
"""

from __future__ import annotations

from typing import NamedTuple

from cachelb.errors import CachelbError
from cachelb.hostnet.wanted import TABLE, AddressEntry, Entry, RouteEntry, RuleEntry, RulesetEntry, Wanted


class HostError(CachelbError):
    """The host cannot be made what the configuration asks for.

    problems: every reason that was found, a sentence each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Foreign(NamedTuple):
    """Something of the same kind that is not ours.

    entry: as far as it is known; text: as the operator knows it.
    """

    entry: Entry
    text: str


class Found(NamedTuple):
    """What the host has: ours, what is like ours but is not, and its interfaces."""

    ours: tuple[Entry, ...]
    foreign: tuple[Foreign, ...]
    interfaces: frozenset[str]


class Step(NamedTuple):
    """Something to be done."""

    add: bool
    entry: Entry

    def __str__(self) -> str:
        return f"{'add' if self.add else 'remove'} {self.entry}"

    @property
    def command(self) -> str:
        """How an operator would do it."""
        return self.entry.added_by() if self.add else self.entry.removed_by()

    @property
    def undone(self) -> Step:
        """What takes it back."""
        return Step(not self.add, self.entry)


def steps(wanted: Wanted, found: Found) -> list[Step]:
    """What has to be done, in order: first what is left over goes, in the reverse order of what is set."""
    ours, asked = set(found.ours), set(wanted.entries)
    gone = [entry for entry in found.ours if entry not in asked]
    if wanted.rules:  # a table is replaced in one transaction
        gone = [entry for entry in gone if not isinstance(entry, RulesetEntry)]
    return [Step(False, entry) for entry in sorted(gone, key=_order, reverse=True)] + [
        Step(True, entry) for entry in wanted.entries if entry not in ours
    ]


def removal(found: Found) -> list[Step]:
    """What has to be done so that nothing of ours is left."""
    return [Step(False, entry) for entry in sorted(found.ours, key=_order, reverse=True)]


def _order(entry: Entry) -> int:
    return (AddressEntry, RuleEntry, RouteEntry, RulesetEntry).index(type(entry))


def conflicts(wanted: Wanted, found: Found) -> list[str]:
    """What stands in the way: a sentence each."""
    problems = []
    for entry in wanted.entries:
        if isinstance(entry, AddressEntry) and entry.interface not in found.interfaces:
            known = ", ".join(sorted(found.interfaces))
            problems.append(f"this host has no interface {entry.interface}, for the address {entry.host}; it has {known}")
    for other, text in found.foreign:
        problems += _in_the_way(wanted, other, text)
    return problems


def _in_the_way(wanted: Wanted, other: Entry, text: str) -> list[str]:
    if isinstance(other, AddressEntry):
        if any(isinstance(entry, AddressEntry) and entry.host == other.host for entry in wanted.entries):
            return [f"{other.host} is an address of {other.interface} already, and it was not cachelb that has put it there"]
    elif not wanted.rules:
        pass
    elif isinstance(other, RulesetEntry):
        return [f"there is an nftables table inet {TABLE} already, and it is not cachelb's: remove it, or give it another name"]
    elif isinstance(other, RouteEntry):
        if other.table == wanted.table:
            return [f"table {other.table} has a route of somebody else: {text}; choose another [hostnet] table"]
    elif other.priority == wanted.priority:
        return [f"the IPv{other.version} rule {other.priority} is somebody else's: {text}; choose another [hostnet] priority"]
    elif wanted.mark & other.mask and wanted.mark & other.mask == other.mark:
        return [
            f"the IPv{other.version} rule {other.priority} means the mark {wanted.mark:#x}, too: {text}; "
            "choose another [hostnet] mark"
        ]
    return []

"""One director's part of its host, from its start to its stop.

    prepare   before sockets are bound and root is given up: addresses, rules, routes; would the kernel take our table?
    begin     it serves now: the table, by which clients come, and the network is told where the addresses are
    tend      what somebody has removed is put back; nodes that have moved are not intercepted at their new addresses
    end       all of it is taken back

While the table is there but nobody listens, packets go their way as if it was not: clients reach the servers without us.  So a
director that died, or that drains, holds nobody up.

Left out: what is asked for (``wanted``), what has to be done for it (``steps``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from cachelb import capabilities
from cachelb.hostnet import netlink, nft
from cachelb.hostnet.announce import Announcer, probe
from cachelb.hostnet.claim import Claim
from cachelb.hostnet.netlink import Netlink
from cachelb.hostnet.steps import Found, HostError, Step, conflicts, removal, steps
from cachelb.hostnet.wanted import AddressEntry, RulesetEntry, Wanted, wanted

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.supervisor import Supervisor

log = logging.getLogger("cachelb.hostnet")

TEND_S: Final = 5.0  # between looks at the host: a flushed ruleset is back after so long; a look takes 20 ms
SETTLE_S: Final = 5.0  # for the kernel to find out that nobody has an IPv6 address: 1 s, a random second before it
ANNOUNCE_AGAIN_S: Final = 1.0  # a packet may be lost, and a switch may still be learning


def look(want: Wanted, link: Netlink) -> Found:
    """What the host has.

    Raises:
        HostError: That cannot be found out.
    """
    ours, foreign = link.found({want.table})
    table, other = None, None
    try:
        table, other = nft.found()
    except HostError:
        if want.rules:  # otherwise there may well be no nftables, and nothing of ours in it
            raise
    ours += [table] if table is not None else []
    foreign += [other] if other is not None else []
    return Found(tuple(ours), tuple(foreign), frozenset(link.interfaces))


def apply(want: Wanted, *, only_add: bool = False, without_table: bool = False) -> list[Step]:
    """Make the host what is wanted, or leave it as it was; returns what was done.

    Args:
        only_add: Leave what is left over: another director may still need it.
        without_table: Only find out whether the kernel would take it.

    Raises:
        HostError: Something stands in the way, or cannot be done.
    """
    with netlink.opened() as link:
        found = look(want, link)
        if problems := conflicts(want, found):
            raise HostError(*problems)
        todo = [step for step in steps(want, found) if step.add or not only_add]
        if todo and (lacking := capabilities.missing(capabilities.NET_ADMIN)):
            raise HostError(_lacks(lacking, todo[0]))
        if without_table:
            for step in todo:
                if isinstance(step.entry, RulesetEntry):
                    nft.check(step.entry)
            todo = [step for step in todo if not isinstance(step.entry, RulesetEntry)]
        _refuse_taken(todo, link)
        done: list[Step] = []
        try:
            for step in todo:
                _do(step, link)
                done.append(step)
            _wait_until_settled(done, link)
        except BaseException:
            for step in reversed(done):
                with contextlib.suppress(HostError):
                    _do(step.undone, link)
            raise
        return done


def remove(want: Wanted) -> list[Step]:
    """Take back all that is ours; returns what was done.

    Raises:
        HostError: Something could not be removed; the rest was.
    """
    with netlink.opened() as link:
        todo = removal(look(want, link))
        problems: list[str] = []
        if todo and (lacking := capabilities.missing(capabilities.NET_ADMIN)):
            raise HostError(_lacks(lacking, todo[0]))
        for step in todo:
            try:
                _do(step, link)
            except HostError as exc:
                problems += exc.problems
        if problems:
            raise HostError(*problems)
        return todo


def _lacks(capability: str, step: Step) -> str:
    return f"{capability} is missing, for: {step.command.splitlines()[0]} (start as root, or with systemd's AmbientCapabilities=)"


def _do(step: Step, link: Netlink) -> None:
    if isinstance(step.entry, RulesetEntry):
        nft.do(step)
    else:
        link.do(step)


def _refuse_taken(todo: Iterable[Step], link: Netlink) -> None:
    """Ask the network whether another host has an IPv4 address that is about to be added."""
    for step in todo:
        entry = step.entry
        if step.add and isinstance(entry, AddressEntry) and entry.version == 4 and entry.interface in link.hardware:
            try:
                owner = probe(entry.host, entry.interface, link.hardware[entry.interface])
            except OSError as exc:
                raise HostError(f"cannot ask on {entry.interface} whether somebody has {entry.host}: {exc.strerror}") from exc
            if owner:
                raise HostError(f"{entry.host} is in use: the host with the hardware address {owner} on {entry.interface} has it")


def _wait_until_settled(done: Iterable[Step], link: Netlink) -> None:
    """Until the kernel has asked the network about IPv6 addresses: before that, nobody can listen on them."""
    waiting = [step.entry for step in done if step.add and isinstance(step.entry, AddressEntry) and step.entry.version == 6]
    until = time.monotonic() + SETTLE_S
    for entry in waiting:
        while (settled := link.settled(entry)) is None and time.monotonic() < until:
            time.sleep(0.05)
        if settled is False:
            raise HostError(f"{entry.host} is in use: another host on {entry.interface} has it")


class Host:
    """The part of one director."""

    def __init__(self, config: Config, claim_fd: int = -1) -> None:
        """claim_fd: of the director before, if there is one."""
        self.config = config
        self.claim = Claim(claim_fd)
        self.inherited = claim_fd >= 0
        self.nodes: tuple[str, ...] = ()
        self.problem = ""  # why the host is not as it should be; "": it is
        self._announcer: Announcer | None = None
        self._soon = asyncio.Event()

    @property
    def wanted(self) -> Wanted:
        """What is asked for just now."""
        return wanted(self.config, self.nodes)

    def prepare(self) -> None:
        """Add addresses, rules and routes.

        Raises:
            HostError: Something stands in the way, or cannot be done; nothing was changed.
        """
        if other := self.claim.take():
            raise HostError(f"{other} has addresses or rules on this host ([hostnet], [intercept]): one director for a host")
        for step in apply(self.wanted, only_add=self.inherited, without_table=True):
            log.info("host: %s", step)
        try:
            with netlink.opened() as link:
                addresses = [(entry.host, entry.interface) for entry in self.wanted.entries if isinstance(entry, AddressEntry)]
                places = [(host, name, link.hardware[name]) for host, name in addresses if name in link.hardware]
            self._announcer = Announcer(places)
        except OSError as exc:
            self.end()
            raise HostError(f"virtual addresses cannot be announced: {exc.strerror} (CAP_NET_RAW)") from exc

    async def begin(self, supervisor: Supervisor) -> None:
        """Have clients come."""
        self._follow(supervisor)
        await asyncio.to_thread(self._tend)
        if self.problem:
            log.error("host: %s", self.problem)
        self._announce()
        asyncio.get_running_loop().call_later(ANNOUNCE_AGAIN_S, self._announce)

    def _follow(self, supervisor: Supervisor) -> bool:
        """Take over where the nodes are now, and who may come in; whether that has changed."""
        before = self.nodes, self.config
        addresses = supervisor.farm.addresses.values()
        self.nodes = tuple(sorted({address for several in addresses for address in several}))
        self.config = self.config.model_copy(update={"access": supervisor.config.access})
        return (self.nodes, self.config) != before

    def _announce(self) -> None:
        if self._announcer is not None:
            try:
                self._announcer.send()
            except OSError as exc:
                log.warning("host: a virtual address could not be announced: %s", exc.strerror)

    def look_soon(self) -> None:
        """A node may have moved."""
        self._soon.set()

    async def tend(self, supervisor: Supervisor) -> None:
        """Keep the host as it should be."""
        events = supervisor.desk.events
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), TEND_S)
            self._soon.clear()
            changed_by_us, before = self._follow(supervisor), self.problem
            done = await asyncio.to_thread(self._tend)
            if done and not changed_by_us:
                changed = ", ".join(str(step.entry) for step in done)
                text = f"somebody has changed what is cachelb's on this host; it is as it should be again: {changed}"
                log.warning("%s", text)
                events.add("host", text, "warning")
                self._announce()
            if self.problem and self.problem != before:
                text = f"what is cachelb's on this host cannot be put right: {self.problem}"
                log.error("%s", text)
                events.add("host", text, "error")

    def _tend(self) -> list[Step]:
        try:
            done = apply(self.wanted)
            self.problem = ""
        except HostError as exc:
            self.problem = str(exc)
            return []
        for step in done:
            log.info("host: %s", step)
        return done

    def end(self) -> None:
        """Take all of it back."""
        self.leave()
        if self.claim.fd >= 0:
            try:
                for step in remove(self.wanted):
                    log.info("host: %s", step)
            except HostError as exc:
                log.error("host: not all could be taken back: %s", exc)
            self.claim.release()

    def leave(self) -> None:
        """Leave it as it is, for another director."""
        if self._announcer is not None:
            self._announcer.close()
            self._announcer = None

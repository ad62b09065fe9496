from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from netbed import Space

from cachelb import capabilities
from cachelb.admin.events import Events
from cachelb.config import Config, parse
from cachelb.farm import Farm
from cachelb.hostnet import host as module
from cachelb.hostnet import netlink, nft
from cachelb.hostnet.claim import holder
from cachelb.hostnet.host import Host, apply, look, remove
from cachelb.hostnet.steps import HostError, Step
from cachelb.hostnet.wanted import wanted

SECTIONS = """
[hostnet]
addresses = ["10.0.0.100 dev veth0", "fd00::100 dev veth0"]
[intercept]
listen = ["127.0.0.1:3129", "[::1]:3129"]
"""
NODE = '[[node]]\nname = "a"\nhost = "a.test"\n'


def config_of(sections: str = SECTIONS) -> Config:
    return parse(sections + NODE, "test")


def test_a_second_time_there_is_nothing_to_do_and_in_the_end_nothing_is_left(space: Space):
    before, want = space.snapshot(), wanted(config_of())
    assert [step.entry for step in apply(want)] == list(want.entries)
    assert apply(want) == []
    assert len(remove(want)) == len(want.entries)
    assert remove(want) == []
    assert space.snapshot() == before


def test_an_address_listens_as_soon_as_it_is_there(space: Space):
    for name in ("all", "veth0"):
        space.sysctl(f"net.ipv6.conf.{name}.accept_dad", "1")
    apply(wanted(config_of()))
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("fd00::100", 0))


def test_what_fails_half_way_leaves_the_host_as_it_was(space: Space, monkeypatch: pytest.MonkeyPatch):
    def refuse(step: Step) -> None:
        raise HostError("no table today")

    monkeypatch.setattr(nft, "do", refuse)
    before = space.snapshot()
    with pytest.raises(HostError, match="no table today"):
        apply(wanted(config_of()))
    assert space.snapshot() == before


def test_who_may_not_is_told_which_command_would_be_next(space: Space, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capabilities, "effective", frozenset)
    with pytest.raises(HostError, match=r"CAP_NET_ADMIN is missing, for: ip addr add 10.0.0.100/32 dev veth0 metric 20312 \("):
        apply(wanted(config_of()))
    monkeypatch.undo()
    apply(wanted(config_of()))
    monkeypatch.setattr(capabilities, "effective", frozenset)
    with pytest.raises(HostError, match="CAP_NET_ADMIN is missing, for: nft delete table inet cachelb"):
        remove(wanted(config_of()))


def test_a_host_without_nftables_is_enough_for_an_address(space: Space, monkeypatch: pytest.MonkeyPatch):
    def refuse() -> None:
        raise HostError("no nftables here")

    monkeypatch.setattr(nft, "found", refuse)
    apply(wanted(config_of('[hostnet]\naddresses = "10.0.0.100 dev veth0"\n')))
    with pytest.raises(HostError, match="no nftables here"):
        apply(wanted(config_of()))


def supervisor_of(farm: Farm, events: Events | None = None, **values: Any) -> Any:
    """As much of a supervisor as is followed."""
    return SimpleNamespace(farm=farm, desk=SimpleNamespace(events=events), config=config_of(**values))


def has_table() -> bool:
    return nft.found()[0] is not None


def test_clients_come_only_when_it_serves_and_the_claim_is_held_all_the_time(space: Space):
    before = space.snapshot()

    async def main() -> None:
        subject, farm = Host(config_of()), Farm()
        await asyncio.to_thread(subject.prepare)
        assert holder() == f"the director with process number {os.getpid()}"
        assert not has_table()
        farm.configure(config_of())
        await subject.begin(supervisor_of(farm))
        assert has_table()
        with pytest.raises(HostError, match="one director for a host"):
            await asyncio.to_thread(Host(config_of()).prepare)
        await asyncio.to_thread(subject.end)
        assert holder() == ""

    asyncio.run(main())
    assert space.snapshot() == before


def hosts_of(subject: Host) -> set[str]:
    with netlink.opened() as link:
        return {getattr(entry, "host", "") for entry in look(subject.wanted, link).ours}


async def until(subject: Host, is_true: object, wake: bool = True) -> None:
    async with asyncio.timeout(10.0):
        while not is_true():  # type: ignore[operator]
            await asyncio.sleep(0.01)
            if wake:
                subject.look_soon()


def test_nodes_that_move_are_not_intercepted_at_their_new_address(space: Space):
    async def main() -> None:
        subject, farm, events = Host(config_of()), Farm(), Events(lambda: 0.0)
        await asyncio.to_thread(subject.prepare)
        farm.configure(config_of())
        farm.addresses["a"] = ("10.0.0.11",)
        await subject.begin(supervisor_of(farm))
        assert "elements = { 10.0.0.11 }" in space.run("nft", "list", "table", "inet", "cachelb")
        tending = asyncio.create_task(subject.tend(supervisor_of(farm, events)))
        farm.addresses["a"] = ("10.0.0.12", "fd00::12")
        await until(subject, lambda: "elements = { fd00::12 }" in space.run("nft", "list", "table", "inet", "cachelb"))
        assert "elements = { 10.0.0.12 }" in space.run("nft", "list", "table", "inet", "cachelb")
        assert events.last_id == 0  # nobody has done anything
        tending.cancel()
        await asyncio.to_thread(subject.end)

    asyncio.run(main())


def test_who_may_come_in_since_a_reload_is_intercepted(space: Space):
    async def main() -> None:
        subject, farm, events = Host(config_of()), Farm(), Events(lambda: 0.0)
        await asyncio.to_thread(subject.prepare)
        farm.configure(config_of())
        supervisor = supervisor_of(farm, events)
        await subject.begin(supervisor)
        tending = asyncio.create_task(subject.tend(supervisor))
        supervisor.config = config_of(SECTIONS + '[access]\nallow = ["10.99.0.0/16"]\n')
        await until(subject, lambda: "elements = { 10.99.0.0/16 }" in space.run("nft", "list", "table", "inet", "cachelb"))
        assert events.last_id == 0
        tending.cancel()
        await asyncio.to_thread(subject.end)

    asyncio.run(main())


def test_what_somebody_removes_is_put_back_and_told_and_what_cannot_be_is_told_once(space: Space):
    async def main() -> None:
        subject, farm, events = Host(config_of()), Farm(), Events(lambda: 0.0)
        await asyncio.to_thread(subject.prepare)
        farm.configure(config_of())
        await subject.begin(supervisor_of(farm))
        tending = asyncio.create_task(subject.tend(supervisor_of(farm, events)))
        space.run("nft", "flush", "ruleset")
        await until(subject, lambda: events.last_id == 1)
        assert has_table()
        [event] = events.after(0)
        assert (event.kind, event.level) == ("host", "warning")
        assert "nftables table inet cachelb" in event.text

        space.run("ip", "rule", "add", "priority", "3128", "fwmark", "7", "lookup", "9")
        await until(subject, lambda: events.last_id == 2)
        for _ in range(3):
            subject.look_soon()
            await until(subject, lambda: not subject._soon.is_set(), wake=False)
        [event] = events.after(1)
        assert (event.kind, event.level) == ("host", "error")
        assert "is somebody else's" in subject.problem
        tending.cancel()
        await asyncio.to_thread(subject.end)

    asyncio.run(main())


def test_a_successor_adds_first_and_clears_up_when_it_is_the_director(space: Space):
    async def main() -> None:
        old, farm = Host(config_of()), Farm()
        await asyncio.to_thread(old.prepare)
        farm.configure(config_of())
        await old.begin(supervisor_of(farm))
        new = Host(config_of(SECTIONS.replace("10.0.0.100", "10.0.0.101")), os.dup(old.claim.fd))
        await asyncio.to_thread(new.prepare)
        hosts = await asyncio.to_thread(hosts_of, new)
        assert {"10.0.0.100", "10.0.0.101"} <= hosts
        old.leave()
        old.claim.release()
        await new.begin(supervisor_of(farm))
        hosts = await asyncio.to_thread(hosts_of, new)
        assert "10.0.0.100" not in hosts
        await asyncio.to_thread(new.end)

    before = space.snapshot()
    asyncio.run(main())
    assert space.snapshot() == before


def test_an_address_that_cannot_be_announced_is_taken_back(space: Space, monkeypatch: pytest.MonkeyPatch):
    def refuse(places: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module, "Announcer", refuse)
    before = space.snapshot()
    with pytest.raises(HostError, match="virtual addresses cannot be announced: Operation not permitted"):
        Host(config_of()).prepare()
    assert space.snapshot() == before

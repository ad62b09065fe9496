from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from fakes_admin import NODES, config_of, with_supervisor

from cachelb.admin import peers as module
from cachelb.admin.peers import Peer, Peers, digests
from cachelb.supervisor import Supervisor


def changed(**sections: Any) -> set[str]:
    """The sections whose digest is another one."""
    before, after = digests(config_of()), digests(config_of(**sections))
    return {name for name in before if before[name] != after[name]}


def test_what_routing_depends_on_counts_and_what_a_host_has_for_itself_does_not():
    assert changed(hash={"algorithm": "carp"}) >= {"hash"}
    assert changed(node=[{**NODES[0], "weight": 3.0}, *NODES[1:]]) == {"node"}
    assert changed(bypass={"paths": ["/cart/*"]}) == {"bypass"}
    assert changed(listen={"http": ["127.0.0.1:8080"]}, service={"user": "proxy"}, log={"level": "debug"}) == set()
    assert changed(relay={"workers": 7, "via": "other.test"}, peers={"directors": ["http://10.0.0.2:3180"]}) == set()
    assert changed(relay={"forwarded_for": "off"}) == {"relay"}
    assert changed(intercept={"listen": ["127.0.0.1:3129"]}) == set()
    assert changed(intercept={"ports": [80, 8080]}) == {"intercept"}


def test_the_order_of_nodes_counts_where_it_moves_keys():
    turned = list(reversed(NODES))
    assert changed(node=turned) == set()
    carp = {"algorithm": "carp"}
    assert digests(config_of(hash=carp))["node"] != digests(config_of(hash=carp, node=turned))["node"]


class Other:
    """Another director, as far as it is asked.  answer: what it says."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.answer: Any = {"id": "other", "sections": digests(supervisor.config)}
        self.status = 200
        self.tokens: list[str] = []

    async def start(self) -> str:
        app = web.Application()
        app.router.add_get("/api/v1/shared", self._shared)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def _shared(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers.get("Authorization", ""))
        return web.json_response(self.answer, status=self.status)


def watched(test: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``test(supervisor, other, until)`` with one other director, which is asked all the time."""

    async def run(supervisor: Supervisor) -> None:
        other = Other(supervisor)
        url = await other.start()
        supervisor.config = supervisor.config.model_copy(
            update={"peers": supervisor.config.peers.model_copy(update={"directors": (url,), "interval_s": 0.01})}
        )
        watching = asyncio.create_task(supervisor.peers.watch())

        async def until(is_true: Any) -> list[Any]:
            async with asyncio.timeout(10):
                while not is_true():  # noqa: ASYNC110  what is waited for has no event
                    await asyncio.sleep(0.005)
            return supervisor.desk.events.after(0)

        try:
            await test(supervisor, other, until)
        finally:
            watching.cancel()
            await other.runner.cleanup()

    with_supervisor(run)


def test_a_difference_is_told_once_and_its_end_too(monkeypatch: pytest.MonkeyPatch):
    async def test(supervisor: Supervisor, other: Other, until: Any) -> None:
        events = supervisor.desk.events
        await until(lambda: events.last_id == 1)
        [url] = supervisor.config.peers.directors
        assert supervisor.peers.status() == [{"url": url, "agrees": True, "differs": [], "problem": ""}]
        other.answer["sections"] = {**other.answer["sections"], "node": "x", "pool": "y"}
        *_, event = await until(lambda: events.last_id == 2)
        assert (event.kind, event.level) == ("peer", "error")
        assert event.text == f"the director {url} routes otherwise: it differs in [node], [pool]"
        count = len(other.tokens)
        await until(lambda: len(other.tokens) > count + 3)
        assert events.last_id == 2
        other.answer["sections"] = digests(supervisor.config)
        *_, event = await until(lambda: events.last_id == 3)
        assert event.text == f"the director {url} routes as this one does"

    watched(test, monkeypatch)


def test_what_an_operator_sets_on_a_node_is_a_difference(monkeypatch: pytest.MonkeyPatch):
    async def test(supervisor: Supervisor, other: Other, until: Any) -> None:
        await until(lambda: supervisor.desk.events.last_id == 1)
        nodes = tuple(
            node.model_copy(update={"weight": 9.0}) if node.name == "a" else node for node in supervisor.config.node
        )
        supervisor.config = supervisor.config.model_copy(update={"node": nodes})
        await until(lambda: supervisor.desk.events.last_id == 2)
        [peer] = supervisor.peers.status()
        assert peer["differs"] == ["node"]

    watched(test, monkeypatch)


@pytest.mark.parametrize("answer", [[], {}, {"id": 1, "sections": 7}, "x", {"sections": {"node": "x"}}])
def test_nonsense_is_no_agreement_and_no_crash(monkeypatch: pytest.MonkeyPatch, answer: Any):
    async def test(supervisor: Supervisor, other: Other, until: Any) -> None:
        other.answer = answer
        await until(lambda: supervisor.peers.known and len(other.tokens) > 3)
        [peer] = supervisor.peers.status()
        assert peer["agrees"] is not True
        assert peer["problem"] or peer["differs"]

    watched(test, monkeypatch)


def test_who_cannot_be_asked_is_told_once_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    async def test(supervisor: Supervisor, other: Other, until: Any) -> None:
        await until(lambda: supervisor.desk.events.last_id == 1)
        other.status, other.answer = 401, {"detail": "a bearer token is needed"}
        *_, event = await until(lambda: supervisor.desk.events.last_id == 2)
        assert event.level == "warning"
        assert event.text.endswith("cannot be asked: it answers 401: a bearer token is needed")
        await other.runner.cleanup()
        await until(lambda: "401" not in supervisor.peers.status()[0]["problem"])
        assert supervisor.desk.events.last_id == 2  # it still cannot be asked

    watched(test, monkeypatch)


def test_this_one_may_be_in_the_list(monkeypatch: pytest.MonkeyPatch):
    async def test(supervisor: Supervisor, other: Other, until: Any) -> None:
        other.answer["id"] = supervisor.peers.id
        other.answer["sections"] = {}
        await until(lambda: len(other.tokens) > 3 and all(peer.is_self for peer in supervisor.peers.known.values()))
        assert supervisor.peers.status() == []

    watched(test, monkeypatch)


def test_the_token_of_all_is_sent(monkeypatch: pytest.MonkeyPatch):
    async def test(supervisor: Supervisor, other: Other, until: Any) -> None:
        supervisor.admin.token = "secret-of-all-of-them"
        await until(lambda: "Bearer secret-of-all-of-them" in other.tokens)

    watched(test, monkeypatch)


def test_one_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)

    async def test(supervisor: Supervisor, other: Other, until: Any) -> None:
        await until(lambda: supervisor.peers.known)
        async with asyncio.timeout(10):
            server = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", 0)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            peers = supervisor.config.peers.model_copy(update={"directors": (url,)})
            supervisor.config = supervisor.config.model_copy(update={"peers": peers})
            await until(lambda: supervisor.peers.known.get(url, Peer()).problem == "no answer within 0.05 s")
            server.close()

    watched(test, monkeypatch)
    assert Peers

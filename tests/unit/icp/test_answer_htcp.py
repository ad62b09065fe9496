from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import pytest

from icp.answer_htcp import HtcpAnswerer, HtcpOutcome
from icp.errors import BadUrl
from icp.htcp import CLR_ABSENT, CLR_GONE, CLR_KEPT, TST_HIT, TST_MISS, HtcpOpcode, HtcpQuery, Specifier, pack_query, parse_reply

VECTORS = Path(__file__).parents[2] / "vectors" / "htcp"
URL = b"http://127.0.0.10:8000/n2/obj1.html?q=1"
CLR = pack_query(HtcpQuery(HtcpOpcode.CLR, 5, Specifier(b"PURGE", URL)))
PEER, STRANGER = "10.0.0.1", "192.0.2.1"


def captured(name: str) -> bytes:
    return (VECTORS / f"{name}.bin").read_bytes()


class Farm:
    """`clear` gives `result`, or raises it."""

    def __init__(self, result: int | Exception | None = 1) -> None:
        self.result = result
        self.cleared: list[bytes] = []

    async def clear(self, url: bytes) -> int | None:
        await asyncio.sleep(0)
        self.cleared.append(url)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def answerer(farm: Farm | None = None, *, holds=lambda url: url == URL, **options) -> HtcpAnswerer:
    options.setdefault("may_clear", lambda source: source == PEER)
    return HtcpAnswerer(holds, farm and farm.clear, lambda source: source.startswith("10."), **options)


def finish(answer: object) -> bytes | None:
    assert inspect.iscoroutine(answer)
    return asyncio.run(answer)


def test_a_miss_is_answered_as_squid_does_bit_for_bit():
    assert answerer().answer(captured("03-tst-query"), PEER, 0.0) == captured("03-tst-reply")


def test_a_hit_has_an_empty_detail():
    reply = answerer().answer(captured("02-tst-query"), PEER, 0.0)
    assert isinstance(reply, bytes)
    assert len(reply) == 20 <= len(captured("02-tst-query"))
    assert parse_reply(reply).response == TST_HIT
    assert parse_reply(reply).msg_id == 2


@pytest.mark.parametrize("method", [b"POST", b"get", b""])
def test_what_no_cache_holds_is_a_miss(method: bytes):
    query = pack_query(HtcpQuery(HtcpOpcode.TST, 1, Specifier(method, URL)))
    reply = answerer().answer(query, PEER, 0.0)
    assert isinstance(reply, bytes)
    assert parse_reply(reply).response == TST_MISS


def test_while_not_serving_all_is_a_miss():
    asked = answerer()
    asked.serving = False
    reply = asked.answer(captured("02-tst-query"), PEER, 0.0)
    assert isinstance(reply, bytes)
    assert parse_reply(reply).response == TST_MISS


@pytest.mark.parametrize("problem", [BadUrl("x"), KeyError("x")])
def test_a_lookup_that_fails_is_a_miss(problem: Exception):
    def holds(url: bytes) -> bool:
        raise problem

    asked = answerer(holds=holds)
    reply = asked.answer(captured("02-tst-query"), PEER, 0.0)
    assert isinstance(reply, bytes)
    assert parse_reply(reply).response == TST_MISS
    assert asked.counts[HtcpOutcome.FAILED] == isinstance(problem, KeyError)


def test_a_query_without_wish_for_a_reply_gets_none():
    query = pack_query(HtcpQuery(HtcpOpcode.TST, 1, Specifier(b"GET", URL), wants_reply=False))
    asked = answerer()
    assert asked.answer(query, PEER, 0.0) is None
    assert asked.counts[HtcpOutcome.HIT] == 1


def test_the_old_minor_version_is_answered_in_kind():
    query = pack_query(HtcpQuery(HtcpOpcode.TST, 1, Specifier(b"GET", URL), minor=0))
    reply = answerer().answer(query, PEER, 0.0)
    assert isinstance(reply, bytes)
    assert parse_reply(reply).minor == 0


@pytest.mark.parametrize(
    ("result", "response"),
    [(1, CLR_GONE), (3, CLR_GONE), (0, CLR_ABSENT), (None, CLR_KEPT), (BadUrl("x"), CLR_ABSENT), (KeyError(), CLR_KEPT)],
)
def test_clr_is_done_and_then_answered(result: int | Exception | None, response: int):
    farm = Farm(result)
    reply = finish(answerer(farm).answer(CLR, PEER, 0.0))
    assert farm.cleared == [URL]
    assert reply is not None
    assert parse_reply(reply)[:3] == (HtcpOpcode.CLR, 5, response)
    assert len(reply) == 14


def test_the_clr_of_a_squid_is_done_without_reply():
    farm = Farm()
    asked = answerer(farm)
    assert finish(asked.answer(captured("04-clr-query"), PEER, 0.0)) is None
    assert farm.cleared == [URL]
    assert asked.counts[HtcpOutcome.CLEARED] == 1


def test_who_may_ask_may_not_clear_for_that():
    farm = Farm()
    asked = answerer(farm)
    assert asked.answer(CLR, "10.0.0.2", 0.0) is None
    assert asked.counts[HtcpOutcome.REFUSED] == 1


def test_by_default_nobody_may_clear():
    asked = HtcpAnswerer(lambda url: True, Farm().clear, lambda source: True)
    assert asked.answer(CLR, PEER, 0.0) is None


def test_without_a_way_to_clear_clr_is_refused():
    asked = answerer(None)
    assert asked.answer(CLR, PEER, 0.0) is None
    assert asked.counts[HtcpOutcome.REFUSED] == 1


def test_strangers_get_silence():
    asked = answerer(Farm())
    for data in (captured("02-tst-query"), CLR, b"x"):
        assert asked.answer(data, STRANGER, 0.0) is None
    assert asked.counters()["refused"] == 3


def test_clearing_has_a_limit_of_its_own():
    asked = answerer(Farm(), clear_rate_per_s=1)
    finish(asked.answer(CLR, PEER, 5.0))
    assert asked.answer(CLR, PEER, 5.0) is None
    assert asked.counts[HtcpOutcome.LIMITED] == 1
    assert asked.answer(captured("02-tst-query"), PEER, 5.0) is not None


def test_asking_has_a_limit():
    asked = answerer(rate_per_s=1, burst=1)
    assert asked.answer(captured("02-tst-query"), PEER, 5.0) is not None
    assert asked.answer(captured("02-tst-query"), PEER, 5.0) is None
    assert asked.counts[HtcpOutcome.LIMITED] == 1


def test_other_networks_from_now_on():
    asked = answerer(Farm())
    asked.configure(lambda source: True, lambda source: False)
    assert asked.answer(captured("02-tst-query"), STRANGER, 0.0) is not None
    assert asked.answer(CLR, PEER, 0.0) is None


@pytest.mark.parametrize(("data", "word"), [(b"", "short"), (captured("02-tst-reply"), "unsolicited"), (CLR + b"x", "length")])
def test_garbage_is_counted_by_kind(data: bytes, word: str):
    asked = answerer()
    assert asked.answer(data, PEER, 0.0) is None
    assert {name: count for name, count in asked.counters().items() if count} == {"bad": 1, f"bad_{word}": 1}

"""What is answered to whom; the queries are captured ones where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icp.answer import Answerer, Outcome, Reply, reply
from icp.errors import BadUrl
from icp.packet import SRC_RTT, Opcode, Query, pack_query, parse_reply

VECTORS = Path(__file__).parents[2] / "vectors" / "icp"
URL = b"http://127.0.0.10:8000/n1/obj0.html?q=0"
QUERY = Query(7, URL)


def captured(name: str) -> bytes:
    return (VECTORS / f"{name}.bin").read_bytes()


def holds(url: bytes) -> bool:
    return url == URL


def nothing(url: bytes) -> bool:
    raise AssertionError("must not be asked")


def answerer(**options) -> Answerer:
    options.setdefault("holds", holds)
    options.setdefault("allowed", lambda source: source.startswith("10."))
    return Answerer(options.pop("holds"), options.pop("allowed"), **options)


def opcode_of(datagram: object) -> Opcode | None:
    assert datagram is None or isinstance(datagram, bytes)
    return None if datagram is None else parse_reply(datagram).opcode


# the rule


@pytest.mark.parametrize(("held", "opcode"), [(True, Opcode.HIT), (False, Opcode.MISS), (None, Opcode.MISS)])
def test_what_is_held_is_a_hit_and_all_else_a_miss(held: bool | None, opcode: Opcode):
    assert reply(QUERY, lambda url: held) == Reply(opcode)


def test_the_lookup_sees_the_url_as_it_was_sent():
    seen: list[bytes] = []
    reply(Query(1, b"HTTP://A.com:80"), lambda url: bool(seen.append(url)))
    assert seen == [b"HTTP://A.com:80"]


def test_nothing_is_to_be_fetched_while_we_cannot_serve():
    assert reply(QUERY, nothing, serving=False) == Reply(Opcode.MISS_NOFETCH)


def test_who_may_not_ask_is_told_so_or_not():
    assert reply(QUERY, nothing, allowed=False) == Reply(Opcode.DENIED)
    assert reply(QUERY, nothing, allowed=False, may_deny=False) is None


@pytest.mark.parametrize(
    "url",
    [b"", b"/relative", b"http://a/ b", b"http://a/\t", b"http://a/\x7f", b"http:", b"a/b:c", b"1http://a/", b"http://a/\n"],
)
@pytest.mark.parametrize("serving", [True, False])
def test_what_is_no_url_is_an_error(url: bytes, serving: bool):
    assert reply(Query(1, url), lambda url: False, serving=serving) == Reply(Opcode.ERR)


@pytest.mark.parametrize("url", [b"http://a", b"urn:x", b"svn+ssh://a/", b"http://a/\xe4\xff", b"HTTP://a/"])
def test_what_may_be_a_url_is_looked_up(url: bytes):
    assert reply(Query(1, url), lambda url: True) == Reply(Opcode.HIT)


def test_a_url_that_the_lookup_cannot_understand_is_an_error():
    def bad(url: bytes) -> bool:
        raise BadUrl("port 99999")

    assert reply(QUERY, bad) == Reply(Opcode.ERR)


def test_an_echo_is_a_miss_without_a_lookup():
    assert reply(QUERY._replace(is_echo=True), nothing) == Reply(Opcode.MISS)


def test_the_way_to_the_origin_is_told_only_if_asked_for_and_known():
    asking = QUERY._replace(flags=SRC_RTT)
    assert reply(asking, holds, rtt=lambda url: (3, 20)) == Reply(Opcode.HIT, (3, 20))
    assert reply(asking, lambda url: False, rtt=lambda url: (3, 20)) == Reply(Opcode.MISS, (3, 20))
    assert reply(asking, holds, rtt=lambda url: None) == Reply(Opcode.HIT)
    assert reply(asking, holds) == Reply(Opcode.HIT)
    assert reply(QUERY, holds, rtt=lambda url: (3, 20)) == Reply(Opcode.HIT)


# the guards around it


# what a real Squid replied, where the same is right for us; it escapes URLs in ERR and makes up an rtt
@pytest.mark.parametrize(
    "name",
    [
        *("hit", "miss", "https-url", "port80-explicit", "noncanon-host-case", "hit-hitobjflag", "reqhost-set"),
        *("nonul", "trailing", "badurl-empty", "badurl-noscheme"),
    ],
)
def test_replies_are_those_of_a_real_squid_bit_for_bit(name: str):
    assert answerer().answer(captured(f"{name}-query"), "10.0.0.1", 0.0) == captured(f"{name}-reply")


def test_denied_is_that_of_a_real_squid():
    assert answerer().answer(captured("denied-query"), "192.0.2.1", 0.0) == captured("denied-reply")


def test_no_rtt_is_made_up():
    assert answerer().answer(captured("hit-srcrtt-query"), "10.0.0.1", 0.0) == captured("hit-reply")


def test_a_url_with_a_space_is_sent_back_as_it_came():
    datagram = answerer().answer(captured("badurl-space-query"), "10.0.0.1", 0.0)
    assert isinstance(datagram, bytes)
    assert parse_reply(datagram)[:3] == (Opcode.ERR, 0x01020304, b"http://127.0.0.10:8000/a b")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("badlen+1", "length"),
        ("badlen-1", "length"),
        ("v1", "version"),
        ("op-secho", "echo"),
        ("op-hit-unsolicited", "unsolicited"),
        ("op-25", "opcode"),
        ("reqnum0", "reqnum_zero"),
    ],
)
def test_silence_is_counted_by_kind(name: str, word: str):
    asked = answerer()
    assert asked.answer(captured(f"{name}-query"), "10.0.0.1", 0.0) is None
    counters = asked.counters()
    assert {name: count for name, count in counters.items() if count} == {"bad": 1, f"bad_{word}": 1}


def test_an_err_for_a_malformed_query_is_counted_as_both():
    asked = answerer()
    asked.answer(captured("nonul-query"), "10.0.0.1", 0.0)
    assert {name: count for name, count in asked.counters().items() if count} == {"err": 1, "bad_no_nul": 1}


def test_a_decho_is_answered_with_a_miss_and_no_larger():
    datagram = answerer().answer(captured("op-decho-query"), "10.0.0.1", 0.0)
    assert opcode_of(datagram) is Opcode.MISS
    assert len(datagram) == len(captured("op-decho-query"))


@pytest.mark.parametrize("name", ["nonul", "trailing", "badlen+1", "v1", "op-secho"])
def test_strangers_get_nothing_for_garbage(name: str):
    asked = answerer()
    assert asked.answer(captured(f"{name}-query"), "192.0.2.1", 0.0) is None
    assert asked.counts[Outcome.BAD] == 1


def test_denied_is_said_as_often_as_is_safe_and_then_nothing():
    asked = answerer()
    replies = [opcode_of(asked.answer(captured("hit-query"), "192.0.2.1", 0.0)) for _ in range(300)]
    assert replies == [Opcode.DENIED] * 95 + [None] * 205
    assert (asked.counts[Outcome.DENIED], asked.counts[Outcome.REFUSED]) == (95, 205)


@pytest.mark.sources
def test_that_somebody_was_denied_does_not_slow_the_others(monkeypatch: pytest.MonkeyPatch):
    asked = answerer()
    asked.answer(captured("hit-query"), "192.0.2.1", 0.0)
    monkeypatch.setattr(asked, "_slow", nothing)
    assert asked.answer(captured("hit-query"), "10.0.0.1", 0.0) == captured("hit-reply")


def test_errors_buy_no_denials():
    asked = answerer(allowed=lambda source: False)
    for _ in range(200):
        asked.answer(captured("hit-query"), "10.0.0.1", 0.0)
    asked.configure(lambda source: True)
    for _ in range(200):
        assert opcode_of(asked.answer(captured("badurl-empty-query"), "10.0.0.1", 0.0)) is Opcode.ERR
    asked.configure(lambda source: False)
    assert asked.answer(captured("hit-query"), "10.0.0.1", 0.0) is None


def test_answers_buy_denials():
    asked = answerer(allowed=lambda source: False)
    for _ in range(200):
        asked.answer(captured("hit-query"), "10.0.0.1", 0.0)
    asked.configure(lambda source: True)
    for _ in range(200):
        asked.answer(captured("hit-query"), "10.0.0.1", 0.0)
    asked.configure(lambda source: False)
    assert opcode_of(asked.answer(captured("hit-query"), "10.0.0.1", 0.0)) is Opcode.DENIED


def test_more_than_the_share_of_a_source_is_not_even_read():
    asked = answerer(rate_per_s=1, burst=2)
    replies = [opcode_of(asked.answer(captured("hit-query"), "10.0.0.1", 5.0)) for _ in range(4)]
    assert replies == [Opcode.HIT, Opcode.HIT, None, None]
    assert asked.counts[Outcome.LIMITED] == 2
    assert opcode_of(asked.answer(captured("hit-query"), "10.0.0.2", 5.0)) is Opcode.HIT
    assert asked.answer(b"garbage", "10.0.0.1", 5.0) is None
    assert asked.counts[Outcome.LIMITED] == 3


def test_a_lookup_that_fails_is_a_miss_and_told():
    asked = answerer(holds=lambda url: {}[url])
    assert opcode_of(asked.answer(captured("hit-query"), "10.0.0.1", 0.0)) is Opcode.MISS
    assert isinstance(asked.problem, KeyError)
    assert (asked.counts[Outcome.MISS], asked.counts[Outcome.FAILED]) == (1, 1)


def test_while_not_serving_nothing_is_looked_up():
    asked = answerer(holds=nothing)
    asked.serving = False
    assert opcode_of(asked.answer(captured("hit-query"), "10.0.0.1", 0.0)) is Opcode.MISS_NOFETCH
    asked.serving = True
    assert asked.problem is None


# finding out


def asked_slowly(result: object, url: bytes = URL, is_serving: bool = True) -> tuple[Opcode | None, Answerer]:
    async def ask(url: bytes) -> bool | None:
        await asyncio.sleep(0)
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[return-value]

    async def run() -> tuple[Opcode | None, Answerer]:
        asked = answerer(holds=nothing, ask=ask)
        coroutine = asked.answer(pack_query(7, url), "10.0.0.1", 0.0)
        assert not isinstance(coroutine, bytes)
        assert coroutine is not None
        asked.serving = is_serving
        return opcode_of(await coroutine), asked

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("result", "opcode"),
    [(True, Opcode.HIT), (False, Opcode.MISS), (None, Opcode.MISS), (BadUrl("x"), Opcode.ERR), (KeyError("x"), Opcode.MISS)],
)
def test_what_was_found_out_is_answered(result: object, opcode: Opcode):
    got, asked = asked_slowly(result)
    assert got is opcode
    assert asked.counts[Outcome[opcode.name]] == 1
    assert asked.counts[Outcome.FAILED] == isinstance(result, KeyError)


def test_draining_while_it_was_found_out_counts():
    assert asked_slowly(True, is_serving=False)[0] is Opcode.MISS_NOFETCH


def test_nobody_is_asked_about_what_is_no_url_or_while_not_serving():
    asked = answerer(ask=nothing)
    assert opcode_of(asked.answer(captured("badurl-space-query"), "10.0.0.1", 0.0)) is Opcode.ERR
    assert opcode_of(asked.answer(captured("op-decho-query"), "10.0.0.1", 0.0)) is Opcode.MISS
    asked.serving = False
    assert opcode_of(asked.answer(captured("hit-query"), "10.0.0.1", 0.0)) is Opcode.MISS_NOFETCH


@given(
    st.binary(max_size=60) | st.sampled_from([path.read_bytes() for path in sorted(VECTORS.glob("*.bin"))]),
    st.integers(0, 80),
    st.binary(max_size=3),
    st.sampled_from([True, False, None, BadUrl("x"), KeyError("x")]),
)
def test_the_short_way_gives_what_the_long_way_gives(data: bytes, at: int, change: bytes, held: object):
    data = data[:at] + change + data[at + len(change) :]
    if len(data) > 4:
        data = data[:2] + len(data).to_bytes(2, "big") + data[4:]

    def lookup(url: bytes) -> bool | None:
        if isinstance(held, Exception):
            raise held
        return held  # type: ignore[return-value]

    short, long = answerer(holds=lookup), answerer(holds=lookup)
    assert short.answer(data, "10.0.0.1", 0.0) == long._slow(data, "10.0.0.1")
    assert short.counters() == long.counters()


SEEDS = [path.read_bytes() for path in sorted(VECTORS.glob("*.bin"))]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(SEEDS) | st.binary(max_size=30) | st.just(pack_query(8, b"http://raises/")),
            st.sampled_from(["10.0.0.1", "10.0.0.2", "192.0.2.1"]),
        ),
        max_size=12,
    ),
    st.booleans(),
    st.sampled_from(["each", "all", "all but some", "none"]),
)
def test_many_are_answered_as_each_would_be(asked_by: list[tuple[bytes, str]], is_serving: bool, way: str):
    def lookup(url: bytes) -> bool:
        if b"raises" in url:
            raise KeyError(url)
        return holds(url)

    def lookup_all(urls: Sequence[bytes]) -> list[bool | None]:
        if way == "none":
            raise KeyError(urls)
        return [None if b"raises" in url or (way == "all but some" and len(url) % 2) else lookup(url) for url in urls]

    options = {"holds": lookup, "rate_per_s": 1, "burst": 4, "denied_budget": 2}
    at_once = answerer(holds_all=None if way == "each" else lookup_all, **options)
    singly, slowly = (answerer(**options) for _ in range(2))
    at_once.serving = singly.serving = slowly.serving = is_serving
    slowly._is_simple = False
    answers = at_once.answer_all([datagram for datagram, _ in asked_by], [source for _, source in asked_by], 1.0)
    assert answers == [singly.answer(datagram, source, 1.0) for datagram, source in asked_by]
    assert answers == [slowly.answer(datagram, source, 1.0) for datagram, source in asked_by]
    assert at_once.counters() == singly.counters() == slowly.counters()


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda text: pack_query(9, text.replace(b"\0", b""))))
def test_no_reply_is_longer_than_its_query_or_a_query(data: bytes):
    asked = answerer()
    for source in ("10.0.0.1", "192.0.2.1"):
        answer = asked.answer(data, source, 0.0)
        if answer is not None:
            assert isinstance(answer, bytes)
            assert len(answer) <= max(len(data), 21)
            assert parse_reply(answer).opcode is not Opcode.DECHO
            assert asked.answer(answer, source, 0.0) is None

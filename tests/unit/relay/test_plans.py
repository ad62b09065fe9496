"""What was made of heads is remembered within bounds, and what is planned on a short way is what the general way plans."""

from __future__ import annotations

import pytest
from fakes import get

from cachelb.config import Config, LimitsConfig
from cachelb.errors import BadRequest, Reason
from cachelb.relay import plans as module
from cachelb.relay.plan import BlockPlan, LinePlan, Planner, plan_settings
from cachelb.relay.plans import MEMO_BLOCK_BYTES, MEMO_BLOCKS, MEMO_LINE_BYTES, Plans
from cachelb.relay.upstream import Target
from cachelb.routing.ring import Member
from cachelb.routing.table import make_table

TARGETS = [Target(f"n{i}", ["127.0.0.9"], 1, i) for i in range(4)]
TABLE = make_table("ring", [Member(target.name, 1.0) for target in TARGETS])
SETTINGS = plan_settings(Config.model_validate({"relay": {"via": "me:1"}}))
Found = tuple[LinePlan[Target] | None, BlockPlan | None]


def fresh(**limits: int) -> Plans:
    plans = Plans()
    plans.configure(LimitsConfig(**limits))
    plans.renew(Planner(SETTINGS, TABLE, TARGETS, [1.0] * 4))
    return plans


def shortly(plans: Plans, data: bytes) -> Found:
    """As a client's connection asks."""
    first, _, rest = data.partition(b"\r\n")
    return plans.usual(first, rest, plans.lines.young.get(first), plans.blocks.young.get(rest))


def sent(line: LinePlan[Target], block: BlockPlan) -> tuple[object, ...]:
    """What a node is sent, which node, and whether at once."""
    return line.head, block.pre, block.ip, block.post, line.targets[0], line.plain, block.plain, repr(block.fields)


@pytest.fixture(params=[False, True], ids=["interpreted", "compiled"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(module, "COMPILED", request.param)
    return bool(request.param)


@pytest.mark.sources
def test_a_block_that_was_never_seen_is_planned_shortly_where_that_is_faster(compiled: bool) -> None:
    plans = fresh()
    data = get("http://a.test/x", "Host: a.test", "Cookie: a=1", "Via: 1.1 c", "X-Forwarded-For: 10.1.1.1")
    line, block = shortly(plans, data)
    assert (block is not None) == compiled
    assert (line is not None) == compiled
    general = fresh().of_head(data)
    assert general is not None
    assert general[2] == len(data)
    if line is not None and block is not None:
        assert sent(line, block) == sent(*general[:2])
        assert plans.blocks.young
        assert plans.lines.young


@pytest.mark.sources
def test_both_halves_are_remembered_by_either_way(compiled: bool) -> None:
    plans = fresh()
    data = get("http://a.test/x", "Host: a.test")
    found = plans.of_head(data)
    assert found is not None
    line, block = shortly(plans, data)
    assert line is found[0]
    assert block is found[1]


@pytest.mark.sources
@pytest.mark.parametrize(
    "more",
    [
        ["Content-Length: 5"],
        ["Authorization: Basic x"],
        ["Cache-Control: no-store"],
        ["Connection: close, x"],
        ["Host: b.test"],
        [f"A{i}: b" for i in range(256)],
        ["A: b\r\n\r\nGET http://a.test/ HTTP/1.1"],
        ["A: " + "b" * 65536],
    ],
)
def test_whatever_is_not_usual_takes_the_general_way(compiled: bool, more: list[str]) -> None:
    assert shortly(fresh(), get("http://a.test/x", "Host: a.test", *more))[1] is None


@pytest.mark.sources
def test_limits_hold_on_the_short_way_as_on_the_general_one(compiled: bool) -> None:
    plans = fresh(head_bytes=4096, fields=16)
    for spare, count in ((0, 16), (1, 16), (0, 17)):
        data = get("http://a.test/x", "Host: a.test", *(f"A{i}: b" for i in range(count - 2)), "Cookie: ")
        data = data.replace(b"Cookie: ", b"Cookie: " + b"c" * (4096 + spare - len(data)))
        fits = spare == 0 and count == 16
        assert (shortly(plans, data)[1] is not None) == (fits and compiled)
        if fits:
            assert plans.of_head(data) is not None
            continue
        with pytest.raises(BadRequest) as caught:
            plans.of_head(data)
        assert caught.value.reason is (Reason.HEAD_TOO_LARGE if spare else Reason.TOO_MANY_FIELDS)


@pytest.mark.sources
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("target", ["http://a.test:8080/%d", "http://a.test/%d"])
def test_a_head_that_takes_the_general_way_is_offered_once(
    monkeypatch: pytest.MonkeyPatch, version: str, target: str
) -> None:
    monkeypatch.setattr(module, "COMPILED", True)
    plans = fresh(memo_entries=4)
    for memo in (plans.lines, plans.blocks):
        memo.most = 4
    for i in range(20):
        data = get(target % i, "Host: a.test", f"Cookie: {i}", version=version)
        line, block = shortly(plans, data)
        if line is None or block is None:
            assert plans.of_head(data) is not None
    assert plans.lines.old
    assert plans.blocks.old
    held = len(plans.lines.young), len(plans.blocks.young)
    for i in range(20, 60):
        data = get(target % i, "Host: a.test", f"Cookie: {i}", version=version)
        line, block = shortly(plans, data)
        if line is None or block is None:
            assert plans.of_head(data) is not None
    assert (len(plans.lines.young), len(plans.blocks.young)) == held
    with_body = get("http://a.test/1000", "Host: a.test", "Content-Length: 0")
    assert None in shortly(plans, with_body)
    assert not plans.lines.met(b"GET http://a.test/1000 HTTP/1.1")


@pytest.mark.sources
def test_two_remembered_halves_are_no_more_than_a_head_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILED", True)
    plans = fresh(head_bytes=1500)
    long_line = "http://a.test/" + "x" * 900
    for data in (get(long_line, "Host: a.test"), get("http://a.test/", "Host: a.test", "Cookie: " + "c" * 1000)):
        assert None not in shortly(plans, data)
    assert None in shortly(plans, get(long_line, "Host: a.test", "Cookie: " + "c" * 1000))


@pytest.mark.sources
def test_memory_is_bounded_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILED", True)
    plans = fresh(memo_entries=50)
    for i in range(200):
        shortly(plans, get(f"http://a.test/{i}", "Host: a.test", f"Cookie: {i}"))
    assert len(plans.lines.young) + len(plans.lines.old) <= 100
    first = get("http://a.test/199", "Host: a.test", "Cookie: 199")
    again = shortly(plans, first)
    assert again[0] is not None
    assert b"GET http://a.test/199 HTTP/1.1" in plans.lines.young  # it has come twice
    assert None in shortly(plans, get("http://a.test/" + "x" * MEMO_LINE_BYTES, "Host: a.test"))
    long = get("http://a.test/", "Host: a.test", "Cookie: " + "y" * MEMO_BLOCK_BYTES)
    for _ in range(2):
        assert None not in shortly(plans, long)
        assert long.partition(b"\r\n")[2] not in plans.blocks.young


@pytest.mark.sources
def test_blocks_that_come_once_do_not_push_out_what_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILED", True)
    plans = fresh()
    usual = get("http://a.test/x", "Host: a.test", "Accept: */*")
    for i in range(MEMO_BLOCKS + 10):
        shortly(plans, get("http://a.test/x", "Host: a.test", f"Cookie: {i}"))
        if i % 1000 == 0:
            shortly(plans, usual)
    held = len(plans.blocks.young)
    for i in range(500):
        shortly(plans, get("http://a.test/x", "Host: a.test", f"Cookie: b{i}"))
    assert len(plans.blocks.young) == held
    assert shortly(plans, usual)[1] is not None


def test_a_new_planner_forgets_lines_and_keeps_blocks() -> None:
    plans = fresh()
    for target in ("http://a.test/x", "/x"):
        plans.of_head(get(target, "Host: a.test"))
    for memo in (plans.lines, plans.host_lines, plans.blocks):
        assert memo.young
    plans.renew(Planner(SETTINGS, TABLE, TARGETS, [1.0, 1.0, 1.0, 0.0]))
    assert not plans.lines.young
    assert not plans.host_lines.young
    assert plans.blocks.young
    plans.configure(LimitsConfig())
    assert not plans.blocks.young


def test_a_head_that_is_not_whole_waits() -> None:
    data = get("http://a.test/x", "Host: a.test")
    plans = fresh()
    for cut in range(1, len(data)):
        assert plans.of_head(data[:cut], cut - 1) is None
    assert plans.of_head(data) is not None

"""The screen fits, says the worst first, and needs no colour."""

import pytest
from cachelb.tools.stats.screen import Look, screen
from cachelb.tools.stats.verdict import judge
from fakes_stats import farm, hot, node, series, status
from rich.console import Console

HUGE = {"requests_per_s": 9.9e12, "bytes_per_s": 8.8e17, "p50_ms": 9.9e8, "p99_ms": 9.9e9, "errors_per_s": 1e9}
NAMES = ("キャッシュ一号機のとても長い名前", "кэш-два", "a" * 120, "x\x1b[31m\u202ered")


def lines(found, **look) -> list[str]:
    return [line.plain for line in screen(found, judge(found), Look(**look))]


@pytest.mark.parametrize("width", [40, 52, 66, 80, 81, 100, 200])
@pytest.mark.parametrize("is_plain", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, is_plain: bool):
    states = ("up", "dead", "drain", "up")
    rows = [node(name, rates=HUGE, state=state, in_flight=10**9) for name, state in zip(NAMES, states, strict=True)]
    found = farm(
        *rows,
        hot=hot("http://www.test/" + "長い/" * 90, "http://b.test/\x1b[2J", share=0.9, owner=NAMES[0]),
        history={"farm": series(), "nodes": {name: series(requests_per_s=[1.0, 1e12, None]) for name in NAMES}},
        events=[{"at": 1_796_000_000.0, "level": "error", "text": "長" * 200}],
        missing={"hot": "x" * 300},
    )
    for line in screen(found, judge(found), Look(width=width, is_plain=is_plain)):
        assert line.cell_len <= width, line.plain
        assert line.plain.isprintable()


def test_at_80_columns_a_usual_farm_shows_every_column_and_the_trend():
    found = farm(history={"farm": series(), "nodes": {"a": series()}})
    head = next(line for line in lines(found) if line.startswith("  node"))
    assert head.split() == ["node", "state", "req/s", "req%", "key%", "hit%", "B/s", "p50", "p99", "err/s", "open", "trend"]
    assert sum(line.startswith(("farm", "around", "peers", "inside")) for line in lines(found)) == 4
    assert len(lines(found)) < 24


def test_a_narrow_terminal_keeps_name_state_requests_and_errors():
    head = next(line for line in lines(farm(), width=40) if line.startswith("  node"))
    assert {"node", "state", "req/s", "err/s"} <= set(head.split())


def test_the_verdict_is_the_first_line_and_what_is_wrong_the_next():
    found = lines(farm(node("a"), node("b", state="dead"), node("c")))
    assert found[0].startswith("✖ NOT WELL: 1 problem")
    assert found[1] == "  ✖ b is dead for 12 s: a cause"
    assert found[2].strip().startswith("look at: ")
    assert lines(farm())[0].startswith("✔ all well")


def test_the_sick_come_first_and_the_well_are_counted_in_a_large_farm():
    rows = [node(f"n{i:03}", state="dead" if i in (150, 170) else "up") for i in range(200)]
    found = lines(farm(*rows))
    table = found[next(i for i, line in enumerate(found) if line.startswith("  node")) + 1 :]
    assert [line.split()[1] for line in table[:2]] == ["n150", "n170"]
    assert any("+188 more well" in line for line in table)
    assert len(found) < 40
    assert len(lines(farm(*rows), every=True)) > 200


def test_in_a_farm_that_is_mostly_dead_the_rest_is_counted_by_its_state():
    found = lines(farm(*(node(f"n{i:03}", state="dead" if i < 90 else "up") for i in range(100))))
    assert any("+66 more NOT well, +10 more well" in line for line in found)


@pytest.mark.parametrize(("by", "first"), [("name", "a"), ("requests", "b"), ("p99", "c"), ("errors", "a")])
def test_rows_are_sorted_by_a_column(by: str, first: str):
    rows = [
        node("c", rates={"p99_ms": 90.0}),
        node("a", rates={"p99_ms": None, "errors_per_s": 0.3}),
        node("b", rates={"requests_per_s": 900.0}),
    ]
    found = lines(farm(*rows), order=by)
    at = next(i for i, line in enumerate(found) if line.startswith("  node"))
    assert first in found[at + 1].split()[:2]


def test_plain_text_is_ascii_alone():
    found = farm(node("a", state="dead"), node("b"), hot=hot("http://x.test/"), history={"nodes": {"b": series()}})
    assert all(line.isascii() for line in lines(found, is_plain=True))


def test_without_colours_nothing_is_lost_and_no_escape_is_written(capsys):
    found = farm(node("a"), node("b", state="dead"))
    for line in screen(found, judge(found), Look()):
        Console(highlight=False, soft_wrap=True).print(line)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "✖ b" in out


def test_hot_urls_and_late_warnings_are_shown():
    event = {"at": 1_796_000_840.0, "level": "warning", "text": "node b is dead: why"}
    old = event | {"at": 1_795_990_000.0, "text": "long ago"}
    quiet = {"at": 1_796_000_850.0, "level": "info", "text": "nothing of note"}
    found = "\n".join(lines(farm(hot=hot("http://www.test/logo.png", share=0.25), events=[old, event, quiet])))
    assert "25    10  100 a     http://www.test/logo.png" in found
    assert "60 s ago: node b is dead: why" in found
    assert "nothing of note" not in found
    assert "long ago" not in found


def test_what_goes_around_the_farm_is_marked_in_the_hot_list():
    found = lines(farm(status=status(), hot=hot("http://www.test/api", owner="", bypassed_share=1.0, nodes={})))
    assert any("(around)" in line for line in found)

from __future__ import annotations

import builtins
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from loglines import START, native

from cachelb.simulate import chart
from cachelb.simulate.chart import ChartError, check, draw_plan, draw_simulation
from cachelb.simulate.plan import Side, made_up_urls, plan
from cachelb.simulate.policies import POLICIES, Node
from cachelb.simulate.replay import Case, replay
from cachelb.simulate.report import Found, Read
from cachelb.simulate.trace import Trace

pytest.importorskip("matplotlib")

PNG = b"\x89PNG\r\n\x1a\n"


FOURTH = Node("cache4")


@pytest.fixture
def found(traced: Callable[..., Trace]) -> Callable[..., Found]:
    def make(added: Node | None = FOURTH, step: int = 1, count: int = 400) -> Found:
        trace = traced([native(f"http://a.example/{n % 100}", 10, START + n * step) for n in range(count)])
        case = Case(tuple(Node(f"cache{n}") for n in (1, 2, 3)), 1 << 30, added=added, change=count // 2)
        outcomes = tuple(replay(policy, case, trace) for policy in POLICIES)
        read = Read(("log",), count, count, 100, 4000, 0, (), {}, START, START + count)
        return Found(read, case, outcomes, tuple(trace.second(end - 1) for end in outcomes[0].ends), START + step * count // 2)

    return make


def texts(path: Path) -> str:
    root = ET.parse(path).getroot()
    return "\n".join("".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text"))


def test_an_svg_names_what_it_shows_and_follows_the_readers_mode(found: Callable[..., Found], tmp_path: Path):
    path = tmp_path / "a.svg"
    draw_simulation(found(), path)
    shown = texts(path)
    for word in (*POLICIES, "Hit ratio", "Most loaded node, mean = 1", "Stored more than once", "cache4 comes"):
        assert word in shown
    svg = path.read_text()
    assert "@media (prefers-color-scheme: dark)" in svg
    used = [
        light
        for light in (*chart.LIGHT.series, *chart.LIGHT[:4])
        if f": {light}" in svg.replace("</style>", "\0").split("\0")[-1]
    ]
    assert set(chart.LIGHT.series) | {chart.LIGHT.ink, chart.LIGHT.paper} <= set(used)
    for light in used:
        assert f'"fill: {light}"' in svg
    assert "://" not in svg.split("<defs>")[1].replace("http://www.w3.org/", "")  # no outside resources


def test_the_same_chart_is_the_same_file(found: Callable[..., Found], tmp_path: Path):
    for name in ("a.svg", "b.svg"):
        draw_simulation(found(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("make", [{}, {"added": None}, {"step": 0}, {"count": 1}, {"step": 86_400}])
def test_every_simulation_has_a_chart(make: dict[str, object], found: Callable[..., Found], tmp_path: Path):
    draw_simulation(found(**make), tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(PNG)


def test_a_dark_png_is_dark(found: Callable[..., Found], tmp_path: Path):
    from matplotlib.image import imread

    for theme, corner in (("light", (255, 255, 255)), ("dark", (13, 17, 23))):
        draw_simulation(found(), tmp_path / "a.png", theme)
        assert tuple(round(255 * part) for part in imread(tmp_path / "a.png")[0, 0][:3]) == corner


@pytest.mark.parametrize("weighed", [True, False])
def test_a_plan_says_each_nodes_share(weighed: bool, tmp_path: Path):
    sides = [Side("x", "ring", tuple(Node(f"n{n}") for n in range(count))) for count in (2, 3)]
    found = plan(*sides, made_up_urls(1000), [3] * 1000 if weighed else None, [5] * 1000 if weighed else None)
    draw_plan(found, tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    assert f"{found.moved.urls / 1000:.1%} of the {'requests' if weighed else 'URLs'} move" in shown
    assert f"0.0 -> {found.moved.urls / 10:.1f}" in shown
    assert {"n0", "n1", "n2", "stays", "comes", "goes"} <= set(shown.splitlines())


def test_a_plan_of_many_nodes_is_cut(tmp_path: Path):
    sides = [Side("x", "ring", tuple(Node(f"n{n}") for n in range(count))) for count in (40, 41)]
    draw_plan(plan(*sides, made_up_urls(1000)), tmp_path / "a.svg")
    assert "17 more nodes are not shown" in texts(tmp_path / "a.svg")


@pytest.mark.parametrize(
    ("name", "why"), [("a.pdf", "is an SVG or a PNG file"), ("a", "is an"), ("none/a.svg", "no such folder")]
)
def test_a_file_that_cannot_be_a_chart_is_told_before(name: str, why: str, tmp_path: Path):
    with pytest.raises(ChartError, match=why):
        check(tmp_path / name)


def test_without_matplotlib_the_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *arguments: object, **more: object) -> object:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ChartError, match=r"pip install 'cachelb\[charts\]'"):
        check(tmp_path / "a.svg")


def test_a_place_that_cannot_be_written_is_told(found: Callable[..., Found], tmp_path: Path):
    (tmp_path / "a.svg").mkdir()
    with pytest.raises(ChartError, match="Is a directory"):
        draw_simulation(found(), tmp_path / "a.svg")

from __future__ import annotations

from pathlib import Path

import pytest
from cachelb.tools.bench.chart import Line, draw, lines_of, relative, size

TABLES = {
    "small": {"haproxy": {"bytes": 400, "us": 20.0}, "cachelb": {"bytes": 400, "us": 23.5}},
    "1m": {"haproxy": {"bytes": 1 << 20, "us": 600.0}, "cachelb": {"bytes": 1 << 20, "us": None}},
    "memory": {"haproxy": {}},
}


def test_lines_are_by_front_end_and_leave_out_what_was_not_measured():
    assert lines_of(TABLES) == [Line("haproxy", ((400, 20.0), (1 << 20, 600.0))), Line("cachelb", ((400, 23.5),))]


def test_multiples_are_of_the_first_front_end():
    lines = [Line("haproxy", ((400, 20.0),)), Line("cachelb", ((400, 25.0), (8192, 30.0)))]
    assert relative(lines) == [Line("haproxy", ((400, 1.0),)), Line("cachelb", ((400, 1.25),))]


def test_sizes_have_units():
    assert [size(count) for count in (400, 8192, 10 << 20)] == ["400 B", "8 KiB", "10 MiB"]


def test_a_picture_is_drawn_in_both_formats(tmp_path: Path):
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib (make bench installs it)")
    svg, png = tmp_path / "x.svg", tmp_path / "x.png"
    draw(lines_of(TABLES), "a machine, a day", [svg, png])
    assert svg.read_text().count("<path") > 10
    assert png.read_bytes().startswith(b"\x89PNG")
    first = svg.read_text()
    draw(lines_of(TABLES), "a machine, a day", [svg])
    assert svg.read_text() == first  # the same figures make the same picture

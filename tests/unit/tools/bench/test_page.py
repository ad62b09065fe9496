from __future__ import annotations

import json
from pathlib import Path

from cachelb.tools.bench import page

ORDER = ("small", "log", "memory")
RESULT = {
    "machine": "A CPU, 2 CPUs",
    "when": {"small": "2026-11-28, 5 rounds of 3 s", "log": "2026-11-27, 5 rounds of 3 s"},
    "text": {"small": "small: a table", "log": "log: another"},
    "tables": {"small": {"haproxy": {"bytes": 400, "us": 20.0}}, "log": {}},
}
LATER = {
    "machine": "A CPU, 2 CPUs",
    "when": {"memory": "later", "log": "later"},
    "text": {"memory": "memory: third", "log": "log: anew"},
    "tables": {"memory": {}, "log": {}},
}


def test_a_page_has_machine_dates_picture_and_every_table():
    text = page.page(RESULT, picture=True)
    for part in ("A CPU, 2 CPUs", "small: a table\n\n2026-11-28, 5 rounds of 3 s\n```", "bench.svg", "log: another"):
        assert part in text
    assert "bench.svg" not in page.page(RESULT, picture=False)


def test_what_is_not_measured_anew_is_kept():
    both = page.merged(RESULT, LATER, ORDER)
    assert both["text"] == {"small": "small: a table", "log": "log: anew", "memory": "memory: third"}
    assert list(both["when"]) == list(ORDER)


def test_figures_of_another_machine_are_not_kept():
    assert page.merged({**RESULT, "machine": "another"}, LATER, ORDER) == LATER


def test_everything_is_written_to_one_folder(tmp_path: Path, monkeypatch):
    drawn: list[Path] = []
    below: list[str] = []
    monkeypatch.setattr(page, "draw", lambda lines, text, paths: (below.append(text), drawn.extend(paths)))
    page.write(tmp_path / "docs", RESULT, ORDER)
    assert json.loads((tmp_path / "docs/bench.json").read_text()) == RESULT
    assert "log: another" in (tmp_path / "docs/bench.md").read_text()
    assert [path.name for path in drawn] == ["bench.svg", "bench.png"]
    assert below == ["A CPU, 2 CPUs, 2026-11-28"]

"""The measuring of holdings: it measures, and checks what it measures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cachelb.tools.bench import holdings


def test_every_figure_is_there_and_plausible(tmp_path: Path):
    figures = holdings.measure(20_000, tmp_path)
    assert figures["keys"] == 20_000
    assert figures["lookups_per_s_held"] > 10_000
    assert figures["adds_per_s"] > 10_000
    assert all(value >= 0 for name, value in figures.items() if name != "bytes_per_key")  # so few keys weigh nothing


def test_resident_memory_is_this_process_s():
    before = holdings.resident_bytes()
    data = b"x" * (64 << 20)
    assert holdings.resident_bytes() - before > 48 << 20
    assert data


def test_it_prints_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["holdings", "0.001"])
    assert holdings.main() == 0
    assert json.loads(capsys.readouterr().out)["keys"] == 1000

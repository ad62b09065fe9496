from __future__ import annotations

from pathlib import Path

import pytest
from cachelb.tools.bench.simulate import FORMATS, lines, measure, report

from cachelb.simulate.policies import POLICIES


@pytest.mark.parametrize("form", FORMATS)
def test_the_log_is_one_that_is_read_whole(form: str, tmp_path: Path):
    path = tmp_path / "log"
    path.write_text("".join(lines(3000, form)))
    found = measure(path)
    assert found["lines"] == 3000
    assert 0.9 < found["requests"] / 3000 < 0.98
    assert 500 < found["urls"] < 1200
    assert all(found[name] > 0 for name in ("read", *POLICIES))


def test_the_table_gives_lines_a_minute():
    found = {"read": 2.0, **dict.fromkeys(POLICIES, 4.0), "lines": 1e6, "requests": 9e5, "urls": 1e5}
    shown = report("squid", found, 96.4).splitlines()
    assert shown[0] == "squid: 1,000,000 lines, 900,000 requests of 100,000 URLs; 96 MB"
    assert shown[1].endswith("30.0 M lines a minute")
    assert shown[2].split()[0] == "ring"
    assert shown[2].endswith("10.0 M lines a minute")

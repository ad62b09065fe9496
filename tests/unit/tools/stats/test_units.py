"""What is shown fits its column."""

import pytest
from cachelb.tools.stats.units import age, clean, count, fit, middle, millis, percent, right, size, sparkline
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

numbers = st.floats(min_value=0, max_value=1e30, allow_nan=False)


@given(numbers)
def test_no_number_is_wider_than_its_column(value: float):
    assert len(count(value)) <= 5
    assert len(size(value)) <= 5
    assert len(millis(value)) <= 5


@given(st.floats(min_value=0, max_value=1))
def test_a_share_is_three_cells_and_neither_nothing_nor_all_by_rounding(value: float):
    text = percent(value)
    assert len(text) <= 3
    assert (text == "0") == (value == 0)
    assert (text == "100") == (value == 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (12, "12"), (9999, "9999"), (12_345, "12.3k"), (456_000_000, "456M"), (1e30, ">999E"), (None, "-")],
)
def test_counts(value, text):
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.44, "0.4ms"), (31.2, "31ms"), (999.6, "1.0s"), (67_000, "67s"), (720_000, "12min"), (None, "-")]
)
def test_times(value, text):
    assert millis(value) == text


@pytest.mark.parametrize(("value", "text"), [(12, "12 s"), (200, "3 min"), (7500, "2 h 05 min"), (360_000, "4 d 4 h")])
def test_ages(value, text):
    assert age(value) == text


@given(st.text(max_size=60), st.integers(1, 40))
def test_every_text_fits_exactly_and_obeys_nothing(text: str, width: int):
    assert cell_len(fit(text, width)) == width
    assert cell_len(right(text, width)) == width
    assert cell_len(middle(text, width)) <= width
    assert clean(text).isprintable()


def test_what_a_terminal_would_obey_is_not_written():
    assert "\x1b" not in fit("http://x/\x1b]0;owned\x07\u202etxt", 40)
    assert clean("\u202e") == "\ufffd"


def test_the_middle_of_a_url_goes():
    assert middle("http://www.test/a/long/path/logo.png", 20) == "http://www…/logo.png"


def test_a_sparkline_is_as_wide_as_it_should_be_and_keeps_the_peak():
    assert sparkline([0, 5, 10], 5) == "  ▁▅█"
    assert sparkline([1.0] * 50 + [9.0] + [1.0] * 49, 10).count("█") == 1
    assert sparkline([None, 1.0], 2) == " █"
    assert sparkline([0, 0], 2) == "▁▁"
    assert sparkline([1], 0) == ""

"""Lists and lengths, the two pieces of grammar that are more than a pattern."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.http.grammar import MAX_LENGTH, parse_length, split_list


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b" a ,\tb\t,, c", [b"a", b"b", b"c"]),
        (b'a="x, y", b', [b'a="x, y"', b"b"]),
        (b'a="x\\", y", b', [b'a="x\\", y"', b"b"]),
        (b'"open, and on', [b'"open, and on']),
        (b'"open, and on,\\', [b'"open, and on,\\']),
    ],
)
def test_a_list_is_split_at_commas_outside_quotes(value: bytes, elements: list[bytes]) -> None:
    assert split_list(value) == elements


@given(st.binary(max_size=60))
def test_no_element_of_a_list_is_empty_or_padded(value: bytes) -> None:
    for element in split_list(value):
        assert element
        assert element == element.strip(b" \t")


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"007", 7), (b"%d" % MAX_LENGTH, MAX_LENGTH), (b"%d" % (MAX_LENGTH + 1), -1)]
    + [
        (bad, -1) for bad in (b"", b"+1", b"-1", b" 1", b"1 ", b"0x10", b"1_0", b"1,1", b"1.0", "١".encode(), b"1" * 20)
    ],
)
def test_a_length_is_plain_digits_that_fit_an_offset(value: bytes, length: int) -> None:
    assert parse_length(value) == length


def test_a_long_unclosed_quote_costs_linear_time() -> None:
    # would take minutes if the pattern backtracked
    assert len(split_list(b'"' + b"a\\" * 30000)) == 1

"""Regular expressions that take linear time."""

from __future__ import annotations

import pytest

from cachelb.routing.patterns import check_expression, compile_expression


def test_an_expression_is_found_anywhere_in_bytes():
    assert compile_expression("^/item/[0-9]+$").search(b"/item/12")
    assert compile_expression("b.d").search(b"/abcd\xff")
    assert not compile_expression("^b").search(b"ab")


@pytest.mark.parametrize("expression", ["(?=a)", r"(a)\1", "(", "a{1001}", "\u2603", "((a{100}){100}){100}"])
def test_what_re2_does_not_take_is_named(expression: str):
    assert check_expression(expression)
    with pytest.raises(ValueError, match=r".+"):
        compile_expression(expression)


def test_bytes_are_characters():
    assert compile_expression("^.{2}$").search(b"\xc3\xa4")
    assert compile_expression("\xe4").search(b"\xe4")

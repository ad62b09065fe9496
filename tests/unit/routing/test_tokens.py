"""Tokens: what was sealed comes back, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.routing.tokens import Sealer, Token, is_expired, is_token

rows = pytest.mark.parametrize
SEALER = Sealer(b"secret" * 6, "shop")
U32 = st.integers(0, 2**32 - 1)
TOKENS = st.builds(Token, st.binary(min_size=8, max_size=8), U32, U32)
ONE = SEALER.seal(Token(SEALER.node_id("n1"), 1_800_000_000, 1_800_000_100))


@given(TOKENS)
def test_what_was_sealed_comes_back(token):
    text = SEALER.seal(token)
    assert is_token(text)
    assert SEALER.open(text) == token


def test_nothing_shows():
    for text in (b"n1", SEALER.node_id("n1"), (1_800_000_000).to_bytes(4)):
        assert text not in ONE


@rows("length", range(44))
def test_no_part_of_one_is_one(length):
    if length < 43:
        assert SEALER.open(ONE[:length]) is None
    assert SEALER.open(ONE + b"A" * (length + 1)) is None


@rows("at", range(43))
def test_no_other_character_anywhere(at):
    for char in b"AB~.=z9 \x00\xff":
        if char != ONE[at]:
            assert SEALER.open(ONE[:at] + bytes([char]) + ONE[at + 1 :]) is None


@given(st.binary(max_size=60))
def test_garbage_is_nothing(data):
    assert SEALER.open(data) is None


@rows("other", [Sealer(b"secret" * 6, "blog"), Sealer(b"other" * 8, "shop")])
def test_another_cookie_or_another_secret_reads_nothing(other):
    assert other.open(ONE) is None
    assert other.node_id("n1") != SEALER.node_id("n1")


def test_the_characters_stay_the_same():
    """A director that is updated reads what the one before wrote, and so do others that share the secret."""
    assert SEALER.seal(Token(bytes(range(8)), 1, 2)) == Sealer(b"secret" * 6, "shop").seal(Token(bytes(range(8)), 1, 2))


@rows(
    "since, used, idle, life, expired",
    [
        (1000, 1000, 0, 0, False),
        (0, 0, 0, 0, False),
        (0, 901, 100, 0, False),
        (0, 899, 100, 0, True),
        (901, 901, 0, 100, False),
        (899, 999, 0, 100, True),
        (1200, 1200, 0, 0, False),
        (1301, 1301, 0, 0, True),
    ],
)
def test_dates(since, used, idle, life, expired):
    assert is_expired(Token(b"", since, used), 1000.0, idle, life) is expired

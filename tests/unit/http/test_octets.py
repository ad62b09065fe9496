"""Tables, words and blanks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.http.grammar import TOKEN
from cachelb.http.octets import COMPILED, IN_LABEL, IN_TOKEN, Picker, is_word, places, table, trimmed


def test_a_table_says_which_bytes_match() -> None:
    assert [byte for byte in range(256) if table(rb"[a-c\xff]")[byte]] == [97, 98, 99, 255]
    for byte in range(256):
        assert IN_TOKEN[byte] == (re.fullmatch(TOKEN, bytes((byte,))) is not None)
    assert bytes(byte for byte in range(256) if IN_LABEL[byte]) == b"-0123456789_abcdefghijklmnopqrstuvwxyz"


TEXTS = st.from_regex(rb"[\x20-\x7e\x80-\xff]{0,6}", fullmatch=True)


@given(TEXTS, st.sampled_from([b"keep-alive", b" close", b"te", b"x-cache"]))
def test_a_word_is_the_same_whatever_the_case(noise: bytes, word: bytes) -> None:
    for text in (word, word.upper(), word.title()):
        data = noise + text + noise
        assert is_word(data, len(noise), len(noise) + len(text), word)
    assert is_word(noise, 0, len(noise), word) == (noise.lower() == word)
    for at in range(len(word)):
        other = word[:at] + noise[:1] + word[at + 1 :]
        assert is_word(other, 0, len(other), word) == (other.lower() == word)


def test_names_are_found_by_their_length_and_second_letter() -> None:
    names = [b"", b"via", b"host", b"hast"]
    found = places(names)
    assert [found[len(name) * 32 + (name[1] & 31)] for name in names[1:]] == [1, 2, 3]
    assert sum(found) == 6
    with pytest.raises(AssertionError):
        places([b"", b"host", b"post"])


@given(st.binary(max_size=4), st.text(" \t", max_size=3), st.binary(max_size=4), st.text(" \t", max_size=3))
def test_blanks_around_are_left_out(before: bytes, left: str, middle: bytes, right: str) -> None:
    data = before + left.encode() + middle + right.encode() + before
    assert trimmed(data, len(before), len(data) - len(before)) == (left.encode() + middle + right.encode()).strip(b" \t")


NAMES = {b"cache-control": True, b"date": False, b"vary": True, b"last-modified": False}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([*NAMES, b"x-date", b"da", b"Vory"]), TEXTS).map(lambda pair: b":".join(pair) + b"\r\n"),
            st.tuples(st.sampled_from([*NAMES]), TEXTS).map(lambda pair: b":".join(pair).title() + b"\n"),
            st.binary(max_size=8),
        ),
        max_size=6,
    )
)
def test_picked_values_are_those_that_a_search_finds(parts: list[bytes]) -> None:
    head = b"\r\n" + b"".join(parts)
    wanted: list[bytes | None] = []
    for name, is_list in NAMES.items():
        ends = [match.end() for match in re.finditer(rb"\n" + name + rb":", head, re.IGNORECASE)]
        values = [head[end:].partition(b"\r")[0].strip(b" \t") for end in ends]
        wanted.append((b",".join(values) if is_list else values[0]) if values else None)
    assert Picker(NAMES).pick(head) == wanted


def test_it_says_whether_it_is_compiled() -> None:
    from cachelb import compiled

    assert compiled.in_use == COMPILED

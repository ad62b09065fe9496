"""What those share that go through heads byte by byte (``usual_answer``, ``usual_fields``, ``usual_line``, ``freshness``).

Compiled (``cachelb.compiled``), such a loop is machine code and makes no object; interpreted, it takes many times as long as a
pattern, so nobody but tests runs it there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cachelb.http.grammar import TOKEN

if TYPE_CHECKING:
    from mypy_extensions import i64

COMPILED: Final = not __file__.endswith((".py", ".pyc"))

TAB: Final = 9
LF: Final = 10
CR: Final = 13
SPACE: Final = 32
DOT: Final = 46
SLASH: Final = 47
ZERO: Final = 48
COLON: Final = 58
DELETE: Final = 127
LOWER: Final = 32  # the bit that tells a small letter from a capital one


def table(pattern: bytes) -> bytes:
    """For each byte 1 if it alone matches."""
    return bytes(re.fullmatch(pattern, bytes((byte,))) is not None for byte in range(256))


def places(names: Sequence[bytes], letter: int = 1) -> bytes:
    """For ``length * 32 + (name[letter] & 31)`` the place in ``names`` of the only one that is so; 0: none.

    Names that share both cannot be told apart so; they are in lower case, the first one is empty.
    """
    found = bytearray((max(map(len, names)) + 1) * 32)
    for place, name in enumerate(names[1:], 1):
        at = len(name) * 32 + (name[letter] & 31)
        assert not found[at], name
        found[at] = place
    return bytes(found)


IN_TOKEN: Final = table(TOKEN)
IN_LABEL: Final = table(rb"[0-9a-z_-]")


def is_word(data: bytes, begin: i64, end: i64, word: bytes) -> bool:
    """Whether ``data[begin:end]``, which holds no control characters, is ``word``, whatever the case of its letters."""
    size: i64 = len(word)
    if end - begin != size:
        return False
    at: i64 = 0
    while at < size:
        if data[begin + at] | LOWER != word[at]:
            return False
        at += 1
    return True


def trimmed(data: bytes, begin: i64, end: i64) -> bytes:
    """``data[begin:end]`` without the blanks around it."""
    while begin < end and (data[begin] == SPACE or data[begin] == TAB):
        begin += 1
    while begin < end and (data[end - 1] == SPACE or data[end - 1] == TAB):
        end -= 1
    return data[begin:end]


class Picker:
    """Picks the values of some fields out of heads."""

    __slots__ = ("_is_list", "_longest", "_names", "_places")

    _LETTER: Final = 2

    def __init__(self, names: dict[bytes, bool]) -> None:
        """names: in lower case, of more than two letters; for each, whether it is a list, so that its lines are one value."""
        self._names = [b"", *names]
        self._is_list = [False, *names.values()]
        self._places = places(self._names, self._LETTER)
        self._longest: i64 = max(map(len, names))

    def pick(self, head: bytes) -> list[bytes | None]:
        """The value of each field, in the order of the names; None where there is none, of several that are no list the first.

        head: it has been read before.  What stands before its first line break is not looked at.
        """
        in_token, places_ = IN_TOKEN, self._places
        found: list[bytes | None] = [None] * (len(self._names) - 1)
        stop: i64 = len(head)
        at: i64 = 0
        while True:
            while at < stop and head[at] != LF:
                at += 1
            at += 1
            line: i64 = at
            while at < stop and in_token[head[at]]:
                at += 1
            if at >= stop:
                return found
            width: i64 = at - line
            if head[at] != COLON or width <= self._LETTER or width > self._longest:
                continue
            place: i64 = places_[width * 32 + (head[line + self._LETTER] & 31)]
            if place and is_word(head, line, at, self._names[place]):
                end: i64 = at + 1
                while end < stop and head[end] != CR:
                    end += 1
                value = trimmed(head, at + 1, end)
                before = found[place - 1]
                if before is None:
                    found[place - 1] = value
                elif self._is_list[place]:
                    found[place - 1] = before + b"," + value

"""The configuration as text: where a key stands in it, how it is written, and what is worth a warning.

Python's TOML reader does not say where a value was, and a problem without a place is half a problem.  ``lines_of`` finds the
lines of all keys in a text that the reader has accepted, so it need not judge anything itself.

Left out: what the keys mean (config.py).
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from cachelb.errors import Problem

if TYPE_CHECKING:
    from cachelb.config import Config

# Where a value is: ("node", 1, "weight") is the weight of the second [[node]].
Path = tuple[str | int, ...]

_STRING = r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*+"|' + r"'[^'\n]*+'"
_token = re.compile(rf"(?s)[ \t]++|#[^\n]*+|({_STRING})|\[\[|\]\]|[^\s\"'#,=\[\]{{}}.]++|.|\n").match


class Found(NamedTuple):
    """Something wrong at ``path``, which is not a place in a text yet."""

    path: Path
    text: str
    hint: str = ""

"""Regular expressions of the configuration: RE2's, which take linear time whatever is asked for.

The one door to the package google-re2.
"""

from __future__ import annotations

from typing import Any

import re2

_MEMORY = 1 << 20  # of one expression, compiled: what needs more is refused when the configuration is read


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    options.encoding = re2.Options.Encoding.LATIN1
    return options


def check_expression(expression: str) -> str:
    """What is wrong with an expression, in RE2's words; empty if nothing is."""
    try:
        compile_expression(expression)
    except ValueError as exc:
        return str(exc)
    return ""


def compile_expression(expression: str) -> Any:
    """An object whose ``search(data)`` finds the expression anywhere in bytes.

    Raises:
        ValueError: It is not one of RE2's, or needs too much memory.
    """
    try:
        return re2.compile(expression.encode("latin-1"), _options())
    except UnicodeEncodeError:
        raise ValueError("it has characters that no URL can have") from None
    except re2.error as exc:
        said = exc.args[0] if exc.args else exc
        raise ValueError(said.decode("latin-1") if isinstance(said, bytes) else str(said)) from exc

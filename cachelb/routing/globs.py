"""Patterns as the configuration writes them, for hosts, paths, queries and fields.

``*`` is any number of characters and ``?`` is one; everything else stands for itself.

Left out: regular expressions of the operator's own (patterns.py), what is done with a match (classify.py, rules.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv6Address


def checked(rule: str, what: str) -> str:
    """Return ``rule`` without white space around it; refuse what could never match.

    Raises:
        ValueError: It cannot be used; the message is one sentence that quotes it.
    """
    text = rule.strip()
    if not text.strip("."):
        raise ValueError(f"{rule!r} is empty; it should be a {what}")
    if not text.isprintable() or not text.isascii():
        raise ValueError(f"{rule!r} has characters that no {what} can have")
    if what == "path" and text[0] not in "/*?":
        raise ValueError(f"{rule!r} can match no path; paths begin with /")
    return text


def checked_host(rule: str) -> str:
    """Return a host rule as `Url.host` has hosts: lower case, no trailing dot, IPv6 addresses short and unbracketed.

    Raises:
        ValueError: As ``checked``.
    """
    text = checked(rule, "host")
    try:
        return IPv6Address(text.strip("[]")).compressed
    except AddressValueError:
        pass
    if any(mark in text for mark in "/: []@"):
        raise ValueError(f"{rule!r} is not a host; write it without scheme, port and path")
    return text.lower().rstrip(".")


def is_pattern(text: str) -> bool:
    """Whether something in ``text`` does not stand for itself."""
    return "*" in text or "?" in text


def glob(pattern: str) -> str:
    """Translate a pattern to a regular expression that takes linear time for any one star.

    A star takes the shortest text up to the first match of what follows it and never gives back (atomic group), which
    is right for all stars but the last, and keeps a rule with many stars from exploding.
    """
    head, *rest = (_literal(part) for part in pattern.split("*"))
    if not rest:
        return head
    return head + "".join(f"(?>[^\r\n]*?{part})" for part in rest[:-1]) + "[^\r\n]*" + rest[-1]


def compile_globs(patterns: Iterable[str]) -> re.Pattern[bytes]:
    """What matches (``fullmatch``) where one of ``patterns`` does."""
    return re.compile("|".join(map(glob, patterns)).encode("latin-1"))


def compile_header(rule: str) -> re.Pattern[bytes]:
    """What finds (``search``) a field in a block: ``Cookie``, or one whose value is like this: ``Cookie: *session=*``.

    Raises:
        ValueError: As ``checked``.
    """
    name, colon, value = (part.strip() for part in rule.partition(":"))
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"{rule!r} does not begin with the name of a header field")
    if not colon:
        return re.compile(rf"(?m)^(?i:{re.escape(name)}):".encode("latin-1"))
    return re.compile(rf"(?m)^(?i:{re.escape(name)}):[ \t]*+{glob(value)}[ \t]*+\r$".encode("latin-1"))


def _literal(text: str) -> str:
    return "[^\r\n]".join(re.escape(part) for part in text.split("?"))

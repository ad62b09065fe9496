"""Cookie and Set-Cookie fields in heads: values are found, changed and taken out, every other byte stays as it is.

Heads are ones that have been parsed: whole lines, each with its CRLF.  Left out: attributes, dates, which cookie a browser
would send.

Source: RFC 6265, sections 4.1.1, 4.2.1 and 5.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_cookie_lines: Final = re.compile(rb"(?im)^(cookie:)([^\r\n]*)\r\n")
_set_cookie_lines: Final = re.compile(rb"(?im)^(set-cookie:)([^\r\n]*)\r\n")

Edit = Callable[[bytes, bytes], bytes | None]


def request_cookies(block: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of all cookies that a request carries, in their order; repeated ones are repeated."""
    return [
        (name, value)
        for _, line in _cookie_lines.findall(block)
        for name, is_pair, value in (_parts(pair) for pair in line.split(b";"))
        if is_pair
    ]


def edit_request(head: bytes, edit: Edit) -> bytes:
    """``head`` with its cookies as ``edit`` says.

    Args:
        edit: Is given name and value of each and returns the value to send; None takes the cookie out.  A field without any
            cookie goes.
    """

    def edited(match: re.Match[bytes]) -> bytes:
        kept = []
        changed = False
        for pair in match[2].split(b";"):
            name, is_pair, value = _parts(pair)
            new = edit(name, value) if is_pair else value
            if new is None:
                changed = True
            elif new == value:
                kept.append(pair)
            else:
                changed = True
                kept.append(b" " + name + b"=" + new)
        if not changed:
            return match[0]
        line = b";".join(kept).strip(b" \t")
        return match[1] + b" " + line + b"\r\n" if line else b""

    return _cookie_lines.sub(edited, head)


def edit_answer(head: bytes, edit: Edit) -> bytes:
    """``head`` with the cookies that it sets as ``edit`` says; None leaves one as it is."""

    def edited(match: re.Match[bytes]) -> bytes:
        pair, semicolon, attributes = match[2].partition(b";")
        name, equals, padded = pair.partition(b"=")
        value = padded.strip(b" \t")
        new = edit(name.strip(b" \t"), value) if equals else None
        if new is None:
            return match[0]
        at = padded.find(value)
        return b"".join((match[1], name, equals, padded[:at], new, padded[at + len(value) :], semicolon, attributes, b"\r\n"))

    return _set_cookie_lines.sub(edited, head)


def set_cookie(name: bytes, value: bytes, domain: str, path: str, secure: bool, http_only: bool, same_site: str) -> bytes:
    """A Set-Cookie line of a cookie that lasts as long as the browser runs."""
    line = b"Set-Cookie: " + name + b"=" + value
    for attribute, text in ((b"Domain", domain), (b"Path", path), (b"SameSite", same_site)):
        if text:
            line += b"; " + attribute + b"=" + text.encode("latin-1")
    return line + (b"; Secure" if secure else b"") + (b"; HttpOnly" if http_only else b"") + b"\r\n"


def with_prefix(value: bytes, mark: bytes) -> bytes:
    """``mark~value``; within the quotes of a quoted value."""
    return b'"' + mark + b"~" + value[1:] if value.startswith(b'"') else mark + b"~" + value


def split_prefix(value: bytes) -> tuple[bytes, bytes]:
    """The mark of ``with_prefix`` and the value; without a mark b"" and the value."""
    quote = b'"' if value.startswith(b'"') else b""
    mark, tilde, rest = value[len(quote) :].partition(b"~")
    return (mark, quote + rest) if tilde else (b"", value)


def with_suffix(value: bytes, mark: bytes) -> bytes:
    """``value.mark``; within the quotes of a quoted value."""
    return value[:-1] + b"." + mark + b'"' if len(value) > 1 and value.endswith(b'"') else value + b"." + mark


def split_suffix(value: bytes) -> tuple[bytes, bytes]:
    """The mark of ``with_suffix`` and the value; without a mark b"" and the value."""
    quote = b'"' if len(value) > 1 and value.endswith(b'"') else b""
    inner = value[:-1] if quote else value
    rest, dot, mark = inner.rpartition(b".")
    return (mark, rest + quote) if dot else (b"", value)


def _parts(pair: bytes) -> tuple[bytes, bytes, bytes]:
    """Name, b"=" and value of one cookie; without "=" all but the last are empty."""
    name, equals, value = pair.partition(b"=")
    return (name.strip(b" \t"), equals, value.strip(b" \t")) if equals else (b"", b"", pair)

"""What an answer's fields say about caches: may a shared cache store it, is it explicitly cacheable, was it a hit.

Judged as Squid judges, because the question is whether the farm's nodes would store the answer, not what a better cache
could do.  Statuses and errors made by the node itself are the caller's to sort out.

Source: RFC 9111, section 5.2; RFC 9211; Squid's http.cc (reusableReply).
"""

from __future__ import annotations

import re
from typing import Final

from cachelb.http.grammar import split_list

# What a Cache-Control value means, by its bytes: origins use few different ones, and 0.1 us is less than the 2 to 3 us
# of judging (2026-11).  Emptied when full; long values, which are likely unique, are not kept.
_verdicts: Final[dict[bytes, tuple[bytes, int]]] = {}
_VERDICTS_MAX: Final = 1024
_VERDICT_BYTES_MAX: Final = 256

# The same for X-Cache, which has one value per node and verdict.
_hits: Final[dict[bytes, int]] = {}  # 1 hit, 0 miss, -1 it does not say

_ALWAYS_STALE: Final = frozenset((b"", b"0", b"-1"))
_directive: Final = re.compile(rb'([^=\s]++)(?:[ \t]*+=[ \t]*+"?([^"]*+)"?)?').match


def cacheability(control: bytes | None, vary: bytes | None, expires: bytes | None) -> tuple[bytes, bool]:
    """Judge three field values; None where the field is absent, repeated fields joined with commas.

    Returns:
        Why no shared cache may ever store the answer (b"private", b"no-store", b"vary-star") or b"", and whether the
        answer is explicitly cacheable.  A stale or revalidated answer (no-cache, max-age=0) is neither.
    """
    fresh = 0
    if control is not None:
        verdict = _verdicts.get(control)
        uncacheable, fresh = _judge(control) if verdict is None else verdict
        if uncacheable:
            return uncacheable, False
    if vary is not None and b"*" in vary and b"*" in split_list(vary):
        return b"vary-star", False
    if fresh or expires is None:
        return b"", fresh > 0
    return b"", expires.strip(b" \t") not in _ALWAYS_STALE


def _judge(control: bytes) -> tuple[bytes, int]:
    """(first directive that forbids storing or b"", 1 if declared fresh, -1 if declared stale, 0 if neither)."""
    uncacheable = b""
    ages: dict[bytes, int] = {}
    fresh = stale = False
    for element in split_list(control.lower()):
        match = _directive(element)
        if match is None:
            continue
        name, argument = match.groups()
        if name in (b"private", b"no-store"):
            # Squid does not store private="field" either: it knows no field lists there.
            uncacheable = uncacheable or name
        elif name == b"public":
            fresh = True
        elif name in (b"max-age", b"s-maxage"):
            ages[name] = 1 if argument and argument.isdigit() and argument.strip(b"0") else 0
        elif name == b"no-cache" and argument is None:
            stale = True
    age = ages.get(b"s-maxage", ages.get(b"max-age"))
    if stale or age == 0:
        verdict = uncacheable, -1
    else:
        verdict = uncacheable, 1 if fresh or age else 0
    if len(control) <= _VERDICT_BYTES_MAX:
        if len(_verdicts) >= _VERDICTS_MAX:
            _verdicts.clear()
        _verdicts[control] = verdict
    return verdict


def is_hit(x_cache: bytes | None, cache_status: bytes | None) -> bool | None:
    """Whether the node served from its store, by the X-Cache of Squid up to 5 or the Cache-Status of later ones.

    Only the last member counts: earlier ones were written by caches behind the node.  None where neither field says.
    """
    if cache_status is not None or x_cache is None:
        return _judge_hit(x_cache, cache_status)
    known = _hits.get(x_cache, 2)
    if known < 2:
        return None if known < 0 else known > 0
    verdict = _judge_hit(x_cache, None)
    if len(x_cache) <= _VERDICT_BYTES_MAX:
        if len(_hits) >= _VERDICTS_MAX:
            _hits.clear()
        _hits[x_cache] = -1 if verdict is None else int(verdict)
    return verdict


def _judge_hit(x_cache: bytes | None, cache_status: bytes | None) -> bool | None:
    if x_cache is not None:
        if b"," in x_cache:
            x_cache = (split_list(x_cache) or [b""])[-1]
        word = x_cache.lstrip(b" \t")[:4].upper()
        if word.startswith(b"HIT"):
            return True
        if word == b"MISS":
            return False
    if cache_status is not None:
        for parameter in (split_list(cache_status) or [b""])[-1].lower().split(b";")[1:]:
            name, _, value = parameter.strip(b" \t").partition(b"=")
            if name == b"hit":
                return value in (b"", b"?1")
            if name == b"fwd":
                return False
    return None

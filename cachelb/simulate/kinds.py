"""What a logged request means for a cache: could the answer be stored, could it be a hit, or is it none of the farm's business?

From method, result code and status, which is all that a log has.  No log has lifetimes: an object stays fresh here until it
is pushed out or the log says that it was fetched anew.

    GET with a status that Squid stores          STORE   a hit if it is there, else stored
    HEAD, 206, 304, cut short (_ABORTED)         LOOK    a hit if it is there, else not stored
    REFRESH_MODIFIED, CLIENT_REFRESH             RENEW   a miss in any cache; the new one is stored
    other statuses (404, 302 ...)                NEVER   a miss in any cache, not stored

What the director would not send to a URL's owner is told as the reason why it is left out.

Source: Squid's LogTags.cc; for statuses, cachelb.http.freshness.
"""

from __future__ import annotations

from cachelb.http.fields import request_fields
from cachelb.http.freshness import STORED_STATUSES
from cachelb.http.url import parse_absolute
from cachelb.routing.classify import BypassRules, Kind, Policy, classify

# Two bits: 1 = a miss in any cache, 2 = not stored.
STORE, RENEW, LOOK, NEVER = range(4)
NO_HIT, NOT_STORED = 1, 2
KIND_BITS = 2

# Why a line is left out, in the order in which they are shown.
BYPASS = "go around the farm (method or rule)"
TUNNEL = "tunnels (CONNECT)"
PURGE = "PURGE"
REFUSED = "refused by the director"
LOCAL = "answered by the director or the cache itself"
DENIED = "denied or failed in the logged cache"
PEER = "questions of peers (ICP, HTCP)"
NO_ANSWER = "no answer was sent"
BAD_URL = "no absolute URL, or one that the director refuses"
REASONS = (BYPASS, TUNNEL, PURGE, REFUSED, LOCAL, DENIED, PEER, NO_ANSWER, BAD_URL)

_BY_KIND = {Kind.BYPASS: BYPASS, Kind.TUNNEL: TUNNEL, Kind.PURGE: PURGE, Kind.REFUSE: REFUSED, Kind.LOCAL: LOCAL}
_NO_FIELDS = request_fields(b"")
_NO_RULES = BypassRules()  # a URL's own are for `refusal`
_SOME_URL = parse_absolute(b"http://any.example/")
_CUT_SHORT = frozenset((b"ABORTED", b"TIMEDOUT"))


def judge(method: bytes, code: bytes, policy: Policy) -> int | str:
    """STORE, LOOK, RENEW or NEVER, or one of REASONS.

    Args:
        code: result code and status, "TCP_MISS/200"; "/200" where the log has no result codes.
    """
    tag, _, status_text = code.partition(b"/")
    status = int(status_text)
    if tag.startswith(b"UDP_") or method in (b"ICP_QUERY", b"HTCP_QUERY", b"HTCP_CLR"):
        return PEER
    if method == b"CONNECT":
        return TUNNEL
    parts = tag.split(b"_")
    if b"DENIED" in parts or b"NONE" in parts or b"REDIRECT" in parts:
        return DENIED
    verdict = classify(method, _SOME_URL, _NO_FIELDS, "absolute", policy._replace(rules=_NO_RULES))
    if verdict.kind is not Kind.HASH:
        return _BY_KIND[verdict.kind]
    if status == 0:
        return NO_ANSWER
    if status not in STORED_STATUSES:
        return LOOK if status in (206, 304) and not _is_renewed(parts) else NEVER
    if method == b"HEAD" or not _CUT_SHORT.isdisjoint(parts):
        return LOOK
    return RENEW if _is_renewed(parts) else STORE


def refusal(target: bytes, policy: Policy) -> tuple[bytes, str]:
    """The key of a GET's URL, and "" or the reason why the director would not ask its owner.

    Raises:
        BadRequest: It is no URL to the director.
    """
    url = parse_absolute(target)
    verdict = classify(b"GET", url, _NO_FIELDS, "absolute", policy)
    return url.key, "" if verdict.kind is Kind.HASH else _BY_KIND[verdict.kind]


def _is_renewed(parts: list[bytes]) -> bool:
    """Whether the origin's own answer went to the client although a cache had the URL; REFRESH_MISS is the old name."""
    return b"CLIENT" in parts or (b"REFRESH" in parts and (b"MODIFIED" in parts or b"MISS" in parts))

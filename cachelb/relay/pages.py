"""What the director answers by itself: error pages and the few requests that end here.

Pure: values in, the bytes of a whole answer out.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from cachelb.errors import Reason

if TYPE_CHECKING:
    from cachelb.relay.plan import BlockPlan, LinePlan

RETRY_AFTER_S = 5  # two health intervals: by then a node that came back is in use again

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{status} {phrase}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:3em auto;padding:0 1em;color-scheme:light dark}}
code{{overflow-wrap:anywhere}}dt{{font-weight:bold}}</style></head>
<body><h1>{status} {phrase}</h1><p>{text}.</p>
<dl>{rows}</dl><hr><p>{name}</p></body></html>
"""

# What a person can do about it; the rest of the reasons speak for themselves.
_ADVICE = {
    Reason.NO_NODE: "All caches are out of service. This is usually brief: try again in a few seconds.",
    Reason.DNS_ERROR: "Check the spelling of the host name.",
    Reason.DESTINATION_DENIED: "The operator can allow it with [bypass] allow_private.",
    Reason.PORT_DENIED: "The operator can allow it.",
    Reason.ACCESS_DENIED: "The operator can allow this network with [access] allow.",
    Reason.PURGE_DENIED: "The operator can allow this network with [access] purge.",
    Reason.MANAGER_DENIED: "The operator can allow this network with [access] manager.",
    Reason.LOOP: "Two proxies send requests to each other: check their parents.",
}


def phrase(status: int) -> str:
    """The reason phrase of RFC 9110 for a status code."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def answer(
    status: int, fields: list[tuple[str, str]], body: bytes, *, keep: bool, head_only: bool = False, minor: int = 1
) -> bytes:
    """A complete answer of our own.

    Args:
        status: 200 to 599.
        fields: further field lines; values must not contain CR or LF.
        body: what to send; only its length with ``head_only`` (an answer to HEAD).
        keep: whether the client connection stays open; minor: the client's HTTP/1 minor version.
    """
    lines = [f"HTTP/1.1 {status} {phrase(status)}", *(f"{name}: {value}" for name, value in fields)]
    lines.append(f"Content-Length: {len(body)}")
    if not keep:
        lines.append("Connection: close")
    elif minor == 0:
        lines.append("Connection: keep-alive")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    return head if head_only else head + body


def error_page(
    reason: Reason,
    detail: str,
    url: bytes,
    request_id: str,
    name: str,
    *,
    keep: bool = False,
    head_only: bool = False,
    minor: int = 1,
) -> bytes:
    """The answer to a request that cannot be served: what happened, to which URL, and an id to ask the operator about."""
    row = reason.value
    shown = [
        ("Requested", url[:512].decode("latin-1")),
        ("Reason", f"{reason.label}: {detail}" if detail else reason.label),
        ("Request id", request_id),
    ]
    if reason in _ADVICE:
        shown.insert(0, ("What now", _ADVICE[reason]))
    rows = "".join(f"<dt>{label}</dt><dd><code>{html.escape(value)}</code></dd>" for label, value in shown if value)
    text = html.escape(row.text[:1].upper() + row.text[1:])
    page = _PAGE.format(status=row.status, phrase=phrase(row.status), text=text, rows=rows, name=html.escape(name))
    body = page.encode("utf-8")
    fields = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store"), ("X-Request-Id", request_id)]
    if row.proxy_status:
        fields.append(("Proxy-Status", f"cachelb; error={row.proxy_status}"))
    if row.status == 503:
        fields.append(("Retry-After", str(RETRY_AFTER_S)))
    return answer(row.status, fields, body, keep=keep, head_only=head_only, minor=minor)


def purge_answer(
    status: int, url: bytes, asked: int, confirmed: int, found: int, problems: Sequence[str],
    *, as_json: bool, keep: bool, minor: int,
) -> bytes:  # fmt: skip
    """The answer to a PURGE.

    Args:
        url: the canonical one; the rest: see ``control.Purged``.
        as_json: for programs.
    """
    if as_json:
        known = {"url": url.decode("latin-1"), "asked": asked, "confirmed": confirmed, "found": found, "problems": list(problems)}
        kind, text = "application/json", json.dumps(known) + "\n"
    else:
        lines = [f"purged from {confirmed} of {asked} nodes", f"{found or 'none'} of them had it", *problems]
        kind, text = "text/plain; charset=utf-8", "".join(line + "\n" for line in lines)
    fields = [("Content-Type", kind), ("Cache-Control", "no-store")]
    return answer(status, fields, text.encode("utf-8", "backslashreplace"), keep=keep, minor=minor)


def options_answer(via: str, *, keep: bool, minor: int) -> bytes:
    """The answer to ``OPTIONS *`` and to an OPTIONS whose Max-Forwards is used up (RFC 9110, section 7.6.2)."""
    fields = [("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, CONNECT"), ("Via", via)]
    return answer(200, fields, b"", keep=keep, minor=minor)


# Fields that may carry secrets are not reflected (RFC 9110, section 9.3.8).
_SECRET = (b"authorization:", b"proxy-authorization:", b"cookie:")


def trace_answer(line: bytes, block: bytes, via: str, *, keep: bool, minor: int) -> bytes:
    """The answer to a TRACE whose Max-Forwards is used up: the request as it arrived, less its secrets."""
    kept = [field for field in block.split(b"\r\n") if not field.lower().startswith(_SECRET)]
    body = line + b"\r\n" + b"\r\n".join(kept) + b"\r\n"
    return answer(200, [("Content-Type", "message/http"), ("Via", via)], body, keep=keep, minor=minor)


def local_answer(line: LinePlan[Any], block: BlockPlan, via_name: str, why: str, keep: bool) -> bytes:
    """The answer to a request that ends here; ``why``: the verdict's; ``via_name``: our received-by name."""
    via = f"1.{line.minor} {via_name} (cachelb)"
    if line.method == b"TRACE":
        first = b"TRACE %s HTTP/1.%d" % (line.target, line.minor)
        return trace_answer(first, block.block, via, keep=keep, minor=line.minor)
    if line.method == b"OPTIONS":
        return options_answer(via, keep=keep, minor=line.minor)
    status, body = 404, b"There is no such internal page here.\n"
    fields = [("Content-Type", "text/plain"), ("Cache-Control", "no-store")]
    if why == "digest" and line.method not in (b"GET", b"HEAD"):
        status, body = 405, b"A digest can be read.\n"
        fields.append(("Allow", "GET, HEAD"))
    return answer(status, fields, body, keep=keep, head_only=line.method == b"HEAD", minor=line.minor)

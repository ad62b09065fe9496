"""What must be true after the demo's requests, told from the Squids' and the origin's own records.

Pure: each check takes what was observed and returns a ``Check``; ``table`` shows it by node.

Left out: observing (``show``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .squid import AccessEntry
from .traffic import Errand, Result

PASSES = 3  # how often the demo asks for each cacheable URL
_SHOWN = 3  # examples in a failed check's detail; the rest is counted


class Check(NamedTuple):
    """One thing that must be true.  detail: the numbers; with examples when it is not."""

    text: str
    passed: bool
    detail: str


class Observed(NamedTuple):
    """Everything that the checks look at.

    base: ``http://host:port`` of the origin.  results: all answers.  cacheable, uncacheable, private: what was asked.
    logs: access.log by node, of client requests only.  holders: for each cacheable URL the nodes that hold it.
    fetched: how often the origin was asked, by "METHOD target".
    icp: what the director says by ICP of the URLs of cacheable and private objects: is it a HIT.
    digest: for each cacheable URL, whether the director's cache digest contains it.
    """

    base: str
    results: Sequence[Result]
    cacheable: Sequence[Errand]
    uncacheable: Sequence[Errand]
    private: Sequence[Errand]
    logs: Mapping[str, Sequence[AccessEntry]]
    holders: Mapping[str, Sequence[str]]
    fetched: Mapping[str, int]
    icp: Mapping[str, bool]
    digest: Mapping[str, bool]


def client_requests(entries: Sequence[AccessEntry], base: str) -> list[AccessEntry]:
    """The lines of an access.log that are about `base`'s objects: no probes, ICP queries or manager reports."""
    targets = (f"{base}/", base.removeprefix("http://"))  # a CONNECT's target is only host:port
    return [entry for entry in entries if entry.url.startswith(targets) and entry.method != "ICP_QUERY"]


def all_checks(seen: Observed) -> list[Check]:
    """Every check, in the order in which they are worth reading."""
    return [
        _answers_are_right(seen),
        _one_owner_each(seen),
        _fetched_once(seen),
        _second_requests_hit(seen),
        _uncacheable_stays_away(seen),
        _private_is_learned(seen),
        _icp_is_true(seen),
        _digest_is_complete(seen),
    ]


def _check(text: str, total: int, wrong: Sequence[str]) -> Check:
    if total == 0:
        return Check(text, False, "nothing was observed")
    if not wrong:
        return Check(text, True, f"{total} of {total}")
    examples = "; ".join(wrong[:_SHOWN]) + (" ..." if len(wrong) > _SHOWN else "")
    return Check(text, False, f"{max(0, total - len(wrong))} of {total}; not: {examples}")


def _answers_are_right(seen: Observed) -> Check:
    wrong = [f"{r.errand.method} {r.errand.path}: {r.problem}" for r in seen.results if r.problem]
    return _check("every answer was complete and right, byte for byte", len(seen.results), wrong)


def _one_owner_each(seen: Observed) -> Check:
    wrong = [f"{url} on {list(nodes)}" for url, nodes in seen.holders.items() if len(nodes) != 1]
    return _check("every URL is stored on exactly one Squid (asked by ICP)", len(seen.holders), wrong)


def _fetched_once(seen: Observed) -> Check:
    times = {errand.path: seen.fetched.get(f"GET {errand.path}", 0) for errand in seen.cacheable}
    wrong = [f"{path} {count} times" for path, count in times.items() if count != 1]
    return _check("the origin was asked once for each of them", len(times), wrong)


def _second_requests_hit(seen: Observed) -> Check:
    urls = {seen.base + errand.path for errand in seen.cacheable}
    entries = sorted(entry for log in seen.logs.values() for entry in log if entry.url in urls)
    visits: Counter[str] = Counter()
    wrong = []
    for entry in entries:
        visits[entry.url] += 1
        if visits[entry.url] > 1 and not entry.is_hit:
            wrong.append(f"{entry.url} {entry.result}")
    wrong += [f"{url} seen {visits[url]} times, not {PASSES}" for url in sorted(urls) if visits[url] != PASSES]
    return _check("second and later requests were hits", (PASSES - 1) * len(urls), wrong)


def _uncacheable_stays_away(seen: Observed) -> Check:
    paths = {errand.path for errand in seen.uncacheable}
    reached = [
        f"{entry.method} {entry.url} at {node}"
        for node, log in seen.logs.items()
        for entry in log
        if entry.url.removeprefix(seen.base) in paths or entry.method not in ("GET", "HEAD")
    ]
    text = "no POST, CONNECT, Authorization or no-store request reached a Squid"
    return _check(text, len(seen.uncacheable), reached)


def _private_is_learned(seen: Observed) -> Check:
    paths = {errand.path for errand in seen.private}
    visits = Counter(
        entry.url for log in seen.logs.values() for entry in log if entry.url.removeprefix(seen.base) in paths
    )
    wrong = [f"{url} {count} times" for url, count in visits.items() if count > 1]
    return _check("what came back private reached a Squid at most once", len(paths), wrong)


def _icp_is_true(seen: Observed) -> Check:
    held = {seen.base + errand.path for errand in seen.cacheable}
    wrong = [f"{url}: {'HIT' if said else 'MISS'}" for url, said in seen.icp.items() if said != (url in held)]
    return _check("the director says by ICP what the farm holds, and what it does not", len(seen.icp), wrong)


def _digest_is_complete(seen: Observed) -> Check:
    wrong = [url for url, contained in seen.digest.items() if not contained]
    return _check("the director's cache digest contains all of it", len(seen.digest), wrong)


def table(seen: Observed) -> str:
    """What went where: one line per node, one for what went around them."""
    keys = Counter(node for nodes in seen.holders.values() for node in nodes)
    rows = [("node", "keys", "requests", "hits", "hit ratio", "bytes")]
    visits = hits = 0
    for node, log in seen.logs.items():
        node_hits = sum(entry.is_hit for entry in log)
        visits += len(log)
        hits += node_hits
        size = sum(entry.size for entry in log)
        rows.append(
            (node, f"{keys[node]:,}", f"{len(log):,}", f"{node_hits:,}", _percent(node_hits, len(log)), f"{size:,}")
        )
    total = len(seen.results)
    size = sum(result.size for result in seen.results)
    rows.append(("(direct)", "-", f"{total - visits:,}", "-", "-", "-"))
    rows.append(("all", f"{keys.total():,}", f"{total:,}", f"{hits:,}", _percent(hits, visits), f"{size:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"

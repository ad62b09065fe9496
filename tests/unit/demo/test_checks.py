"""Each check passes on what should be, and fails on the one thing it is there for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cachelb.demo.checks import PASSES, Check, Observed, all_checks, client_requests, table
from cachelb.demo.squid import AccessEntry
from cachelb.demo.traffic import Errand, Result

BASE = "http://127.0.0.10:8000"
STORED = [Errand("static", f"/static/{n}", b"x") for n in range(4)]
NEVER = [Errand("post", "/upload/1", b"x", "POST"), Errand("login", "/any/login1", b"x")]
PRIVATE = [Errand("private", f"/private/{n}", b"x") for n in range(3)]


def entry(path: str, result: str = "TCP_MISS", method: str = "GET", time: float = 1.0) -> AccessEntry:
    url = path if method == "CONNECT" else BASE + path
    return AccessEntry(time, 1, "127.0.0.1", result, 200, 100, method, url, "HIER_DIRECT/127.0.0.10", "-")


def good() -> dict[str, object]:
    logs: dict[str, list[AccessEntry]] = {"cache1": [], "cache2": []}
    for number, errand in enumerate(STORED):
        log = logs["cache1" if number % 2 else "cache2"]
        log.append(entry(errand.path))
        log += [entry(errand.path, "TCP_MEM_HIT", time=2.0 + n) for n in range(PASSES - 1)]
    logs["cache1"] += [entry(errand.path) for errand in PRIVATE]
    return {
        "base": BASE,
        "results": [Result(errand, 1, "") for errand in [*STORED * PASSES, *NEVER, *PRIVATE * 2]],
        "cacheable": STORED,
        "uncacheable": NEVER,
        "private": PRIVATE,
        "logs": logs,
        "holders": {BASE + errand.path: ["cache1"] for errand in STORED},
        "fetched": {f"GET {errand.path}": 1 for errand in STORED},
        "icp": {BASE + errand.path: errand in STORED for errand in [*STORED, *PRIVATE]},
        "digest": {BASE + errand.path: True for errand in STORED},
    }


def checks(observed: dict[str, object]) -> list[Check]:
    return all_checks(Observed(**observed))  # type: ignore[arg-type]


def test_everything_passes_when_all_is_well():
    assert [check for check in checks(good()) if not check.passed] == []


def wrong_answer(seen: dict) -> None:
    seen["results"][0] = Result(STORED[0], 0, "status 502")


def stored_twice(seen: dict) -> None:
    seen["holders"][BASE + "/static/1"] = ["cache1", "cache2"]


def stored_nowhere(seen: dict) -> None:
    seen["holders"][BASE + "/static/1"] = []


def fetched_twice(seen: dict) -> None:
    seen["fetched"]["GET /static/2"] = 2


def second_is_a_miss(seen: dict) -> None:
    seen["logs"]["cache2"][1] = entry("/static/0", time=2.0)


def a_visit_is_missing(seen: dict) -> None:
    del seen["logs"]["cache2"][2]


def post_arrived(seen: dict) -> None:
    seen["logs"]["cache1"].append(entry("/upload/1", method="POST"))


def login_arrived(seen: dict) -> None:
    seen["logs"]["cache1"].append(entry("/any/login1"))


def connect_arrived(seen: dict) -> None:
    seen["logs"]["cache1"].append(entry("127.0.0.10:8000", "TCP_TUNNEL", "CONNECT"))


def private_twice(seen: dict) -> None:
    seen["logs"]["cache2"].append(entry("/private/0"))


def icp_denies_what_is_held(seen: dict) -> None:
    seen["icp"][BASE + "/static/1"] = False


def icp_invents(seen: dict) -> None:
    seen["icp"][BASE + "/private/1"] = True


def digest_lacks_one(seen: dict) -> None:
    seen["digest"][BASE + "/static/1"] = False


@pytest.mark.parametrize(
    ("spoil", "failing"),
    [
        (wrong_answer, "right, byte for byte"),
        (stored_twice, "exactly one Squid"),
        (stored_nowhere, "exactly one Squid"),
        (fetched_twice, "asked once"),
        (second_is_a_miss, "were hits"),
        (a_visit_is_missing, "were hits"),
        (post_arrived, "reached a Squid"),
        (login_arrived, "reached a Squid"),
        (connect_arrived, "reached a Squid"),
        (private_twice, "at most once"),
        (icp_denies_what_is_held, "says by ICP"),
        (icp_invents, "says by ICP"),
        (digest_lacks_one, "digest contains all"),
    ],
)
def test_one_fault_fails_one_check(spoil: Callable[[dict], None], failing: str):
    seen = good()
    spoil(seen)
    failed = [check for check in checks(seen) if not check.passed]
    assert len(failed) == 1
    assert failing in failed[0].text
    assert "not: " in failed[0].detail


def test_nothing_observed_is_a_failure():
    empty = {name: type(value)() for name, value in good().items()}
    assert not any(check.passed for check in checks(empty))


def test_only_the_clients_requests_count():
    lines = [entry("/static/1"), entry("127.0.0.10:8000", method="CONNECT"), entry("/static/1", "UDP_HIT", "ICP_QUERY")]
    probe = entry("/")._replace(url="http://ready.test/", method="TRACE")
    assert client_requests([*lines, probe], BASE) == lines[:2]


def test_the_table_adds_up():
    header, *rows = table(Observed(**good())).splitlines()  # type: ignore[arg-type]
    assert header.split() == ["node", "keys", "requests", "hits", "hit", "ratio", "bytes"]
    assert [row.split()[0] for row in rows] == ["cache1", "cache2", "(direct)", "all"]
    assert rows[0].split()[1:] == ["4", "9", "4", "44.4", "%", "900"]
    assert rows[2].split()[2] == "5"
    assert len({len(row) for row in rows}) == 1

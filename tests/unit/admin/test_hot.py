"""The heavy hitters, checked against counting everything."""

from __future__ import annotations

import random
from collections import Counter

from cachelb.admin.hot import BEST, FULL, KEPT, WINDOW_S, Hot, Table, host_of
from cachelb.control import BYPASSED, HIT, MARKED, NO_SLOT, Sample


def sample(url: str, weight: int = 1, size: int = 100, slot: int = 0, flags: int = MARKED) -> Sample:
    return Sample(slot, flags, weight, size, url.encode())


def read(hot: Hot, minutes: float = 5, limit: int = 10, now: float = 0.0) -> dict:
    return hot.as_dict(minutes, limit, now, {0: "a", 1: "b"}, lambda url: "a")


def test_urls_and_hosts_are_counted_by_requests_and_by_bytes():
    hot = Hot()
    hot.add([sample("http://x/1", 10), sample("http://x/2", 5, flags=HIT | MARKED), sample("http://y/", 1, 10_000, 1)], 0.0)
    found = read(hot)
    assert (found["samples"], found["requests"], found["bytes"]) == (3, 16, 11_500)
    assert [entry["name"] for entry in found["urls_by_requests"]] == ["http://x/1", "http://x/2", "http://y/"]
    assert found["urls_by_bytes"][0] | {"owner": ""} == {
        "name": "http://y/", "owner": "", "requests": 1, "requests_share": 0.0625, "bytes": 10_000, "bytes_share": 0.8696,
        "hit_ratio": 0.0, "bypassed_share": 0.0, "nodes": {"b": 1.0}, "error": 0,
    }  # fmt: skip
    host = found["hosts_by_requests"][0]
    assert (host["name"], host["requests"], host["hit_ratio"], host["owner"]) == ("x", 15, 0.3333, "")
    assert len(read(hot, limit=1)["urls_by_requests"]) == 1


def test_an_uncacheable_flood_can_be_seen():
    hot = Hot()
    hot.add([sample("http://x/private", 9, slot=NO_SLOT, flags=BYPASSED), sample("http://x/private", 1)], 0.0)
    entry = read(hot)["hosts_by_requests"][0]
    assert (entry["bypassed_share"], entry["nodes"], entry["hit_ratio"]) == (0.9, {"a": 0.1}, 0.0)


def test_what_is_old_is_not_looked_at_and_then_forgotten():
    hot = Hot()
    for number in range(KEPT + 3):
        hot.add([sample(f"http://x/{number}")], number * WINDOW_S)
    now = (KEPT + 2) * WINDOW_S
    assert read(hot, minutes=1, now=now)["requests"] == 2
    assert read(hot, minutes=60, now=now)["requests"] == KEPT


def test_nothing_at_all_is_fine():
    assert read(Hot())["urls_by_requests"] == []


def test_the_table_is_bounded_and_finds_the_heaviest_within_its_error():
    chance = random.Random(7)
    table, truth = Table(), Counter[bytes]()
    for number in range(60_000):
        # a tenth goes to twenty URLs, the rest to as many others as there are requests
        name = b"hot %d" % chance.randrange(20) if chance.random() < 0.1 else b"cold %d" % number
        truth[name] += 1
        table.add(name, Sample(0, 0, 1, 1, name))
        assert len(table.entries) <= FULL
    table.prune()
    assert len(table.entries) <= 2 * BEST
    for name, count in truth.most_common(20):
        entry = table.entries[name]
        assert entry.requests <= count <= entry.requests + entry.error
    assert table.floor <= 60_000 / BEST


def test_who_enters_late_may_have_been_missed_as_often_as_the_floor():
    table = Table()
    for number in range(FULL + 1):
        table.add(b"%d" % number, Sample(0, 0, 2, 1, b""))
    assert table.floor == 2
    assert table.entries[b"%d" % FULL].error == 2


def test_hosts_are_read_from_canonical_urls_and_from_what_connect_asks_for():
    assert host_of(b"http://www.test:8080/a?b/c") == b"www.test:8080"
    assert host_of(b"www.test:443") == b"www.test:443"
    assert host_of(b"http://[::1]/") == b"[::1]"


def test_what_goes_around_the_farm_is_summed_up_by_its_first_segment():
    hot = Hot()
    around = [sample(f"http://x/api/{number}?q=/z", 2, slot=NO_SLOT, flags=BYPASSED) for number in range(3)]
    others = [sample("x:443", 1, slot=NO_SLOT, flags=BYPASSED), sample("http://x/api/seen", 50)]
    hot.add([*around, *others, sample("http://x/root?a=/b/c", 1, slot=NO_SLOT, flags=BYPASSED)], 0.0)
    found = hot.as_dict(5, 10, 1.0, {}, lambda url: "")["around_by_requests"]
    assert [(entry["name"], entry["requests"]) for entry in found] == [("x/api/", 6), ("x:443", 1), ("x/", 1)]

"""Pages of templates."""

from __future__ import annotations

import pytest

from cachelb.affinity import listing
from cachelb.affinity.listing import BadPageError, groups, of_client, page
from cachelb.affinity.templates import NOBODY, Templates
from cachelb.routing.template import Group, packed

NAMES = {0: "a", 1: "b", 2: "c"}


def table(count: int = 500) -> Templates:
    subject = Templates()
    subject.configure([Group("shop", timeout_s=300.0), Group("mail", netmask_v4=24, returns=True)])
    for number in range(count):
        ip = packed(f"10.{number % 250}.{number // 250}.1")
        for shelf in subject.shelves.values():
            subject.put(shelf, shelf.group.key(ip), number % 3, 2 if number % 3 == 0 else NOBODY, 100.0)
    return subject


def every(subject: Templates, wanted: list[str], slot: int | None, limit: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    after = ""
    while True:
        clients, after = page(subject, wanted, slot, limit, after, NAMES, 150.0)
        assert len(clients) <= limit
        found += [(client["group"], client["client"]) for client in clients]
        if not after:
            return found


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
def test_pages_have_everything_once(limit: int):
    subject = table(200 if limit == 1 else 500)
    found = every(subject, ["shop", "mail"], None, limit)
    assert len(found) == len(set(found)) == subject.size
    assert len(every(subject, ["mail"], 1, limit)) == subject.shelves["mail"].counts[1]


def test_it_does_not_matter_what_is_used_made_or_forgotten_between_two_pages():
    subject = table()
    shelf = subject.shelves["shop"]
    first, after = page(subject, ["shop"], None, 250, "", NAMES, 150.0)
    for shard in shelf.shards:
        for key in list(shard)[::2]:
            shelf.use(key, 200.0)
    subject.put(shelf, shelf.group.key(packed("192.0.2.1")), 0, NOBODY, 1.0)
    second, end = page(subject, ["shop"], None, 1000, after, NAMES, 150.0)
    assert end == ""
    seen = [client["client"] for client in first + second]
    assert len(seen) == len(set(seen))
    assert set(seen) | {"192.0.2.1"} == {shelf.group.network(key) for shard in shelf.shards for key in shard}


def test_a_page_looks_at_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listing, "LOOKED_AT", 50)
    subject = table()
    clients, after = page(subject, ["shop", "mail"], 7, 100, "", NAMES, 150.0)
    assert clients == []
    assert after != ""
    assert every(subject, ["shop", "mail"], 7, 100) == []
    assert len(every(subject, ["shop"], 2, 100)) == 166


def test_a_template_says_who_where_and_how_long():
    subject = table(3)
    assert of_client(subject, ["shop", "mail"], packed("10.0.0.77"), NAMES, 150.0) == [
        {"group": "mail", "client": "10.0.0.0/24", "node": "a", "home": "c", "idle_s": 50.0, "expires_in_s": 1750.0}
    ]
    (found,) = of_client(subject, ["shop"], packed("10.1.0.1"), NAMES, 500.0)
    assert found == {"group": "shop", "client": "10.1.0.1", "node": "b", "home": "", "idle_s": 400.0, "expires_in_s": 0.0}


def test_groups_are_counted_by_node():
    shop, mail = groups(table(9), NAMES)
    assert (shop["name"], shop["templates"], shop["nodes"], shop["after_death"]) == ("shop", 9, {"a": 3, "b": 3, "c": 3}, "stay")
    assert (mail["netmask_v4"], mail["after_death"]) == (24, "return")
    assert page(table(9), ["shop"], None, 0, "", NAMES, 0.0) == ([], "")


@pytest.mark.parametrize("after", ["x", "1", "1-2", "1-2-x", "9" * 90, "-1-2-3", "1--2-3", "1-2-²"])
def test_what_is_no_end_of_a_page_is_refused(after: str):
    with pytest.raises(BadPageError):
        page(table(1), ["shop"], None, 10, after, NAMES, 0.0)


def test_an_end_beyond_everything_is_an_empty_page():
    assert page(table(5), ["shop"], None, 10, "7-900-5", NAMES, 0.0) == ([], "")

"""``Index``: who is believed about what, and which nodes count."""

from __future__ import annotations

import pytest

from cachelb.cluster import index as module
from cachelb.cluster.holdings import Holding, Holdings, Source, mask_of
from cachelb.cluster.index import LATE_S, LOG_LIVE_S, Index
from cachelb.cluster.storelog import Event, What
from cachelb.config_policy import RuleConfig
from cachelb.control import Seen
from cachelb.routing.rules import compile_rules
from cachelb.snapshot import NodeView
from digest import store_key
from icp import BadUrl

START = 1_800_000_000
LATER = START + 3600
URL = b"http://www.a.com/x"
KEY = store_key(URL)


class Clock:
    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def index(clock: Clock) -> Index:
    made = Index(Holdings(), clock)
    made.place([view(1), view(2), view(3)])
    return made


def view(slot: int, name: str = "", state: str = "up", addresses: tuple[str, ...] = ("127.0.1.1",)) -> NodeView:
    return NodeView(name or f"cache{slot}", slot, addresses, 3128, 1.0, state)  # type: ignore[arg-type]


def stored(expires: int = LATER, url: bytes = URL) -> Event:
    return Event(What.STORED, store_key(url), expires)


def released(url: bytes = URL) -> Event:
    return Event(What.RELEASED, store_key(url))


def record(index: Index, slot: int = 1, url: bytes = URL) -> Holding | None:
    found = [held for held in index.holdings.holders(store_key(url)) if held.node == slot]
    return found[0] if found else None


def test_many_are_looked_up_as_each_would_be(index: Index):
    index.saw([Seen(1, LATER, URL), Seen(2, START + 10, b"http://stale/"), Seen(9, LATER, b"http://nobody/")])
    urls = [
        URL,
        b"HTTP://www.A.com:80/x",
        b"http://a/",
        b"http://A/",
        b"http://stale/",
        b"http://nobody/",
        b"x",
        b"http://127.1/",
    ]
    found: list[bool | None] = []
    for url in urls:
        try:
            found.append(index.holds(url))
        except BadUrl:
            found.append(None)
    assert found == [True, True, False, False, False, False, None, None]
    assert index.holds_all(urls) == found
    assert index.holds_all([]) == []


def test_what_was_seen_is_held(index: Index):
    assert not index.holds(URL)
    index.saw([Seen(1, LATER, URL), Seen(2, LATER, URL)])
    assert index.holds(URL)
    assert index.holders(URL) == [1, 2]
    assert not index.holds(b"http://www.a.com/y")


def test_it_must_be_fresh_for_half_a_minute(index: Index, clock: Clock):
    index.saw([Seen(1, START + 100, URL)])
    clock.now = START + 69.5
    assert index.holds(URL)
    clock.now = START + 70
    assert not index.holds(URL)


@pytest.mark.parametrize(
    "asked", [b"HTTP://WWW.A.com/x", b"http://www.a.com:80/x", b"http://www.a.com./x", b"http://u:p@www.a.com/x"]
)
def test_another_way_of_writing_a_url_finds_it_too(index: Index, asked: bytes):
    index.saw([Seen(1, LATER, URL)])
    assert index.holds(asked)
    assert index.holders(asked) == [1]
    assert index.forget_url(asked) == 1
    assert not index.holds(URL)


def test_the_raw_url_is_found_even_if_it_is_no_canonical_one(index: Index):
    # whatever a node stores under, by its StoreID helper for instance
    odd = b"http://cdn.SQUID.internal:80/x"
    index.saw([Seen(1, LATER, odd)])
    assert index.holds(odd)
    index.saw([Seen(1, LATER, b"not a url")])
    assert index.holds(b"not a url")
    assert index.holders(b"not a url") == [1]
    assert index.forget_url(b"not a url") == 1


@pytest.mark.parametrize("url", [b"ftp://ftp.a.com/x", b"https://www.a.com/"])
def test_other_schemes_are_urls(index: Index, url: bytes):
    assert not index.holds(url)
    index.saw([Seen(1, LATER, url)])
    assert index.holds(url)


@pytest.mark.parametrize("url", [b"", b"x", b"http://", b"http://a b/", b"http://[::1/", b"http://a:99999/", b"/x"])
def test_what_is_no_url_is_told(index: Index, url: bytes):
    with pytest.raises(BadUrl):
        index.holds(url)
    with pytest.raises(BadUrl):
        index.canonical(url)
    assert index.holders(url) == []
    assert index.forget_url(url) == 0


def test_a_url_that_is_held_is_not_parsed(index: Index, monkeypatch: pytest.MonkeyPatch):
    index.saw([Seen(1, LATER, URL)])
    monkeypatch.setattr(module.urls, "canonical", lambda url: pytest.fail("parsed"))
    assert index.holds(URL)


@pytest.mark.parametrize(("state", "held"), [("up", True), ("drain", True), ("down", False), ("dead", False)])
def test_only_nodes_that_can_be_fetched_from_count(index: Index, state: str, held: bool):
    index.saw([Seen(1, LATER, URL)])
    index.place([view(1, state=state), view(2), view(3)])
    assert index.holds(URL) is held
    assert index.holders(URL) == [1]
    index.place([view(1), view(2), view(3)])
    assert index.holds(URL)
    index.place([view(1, addresses=()), view(2), view(3)])
    assert not index.holds(URL)
    assert index.live == mask_of([2, 3])


def test_a_node_that_left_is_forgotten_and_one_that_took_its_slot_begins_with_nothing(index: Index):
    index.saw([Seen(1, LATER, URL), Seen(2, LATER, URL)])
    index.place([view(1, "other"), view(3)])
    assert index.holders(URL) == []
    index.saw([Seen(2, LATER, URL)])  # late: of the one that left
    index.place([view(1, "other"), view(2, "another"), view(3)])
    assert index.holders(URL) == []


def test_what_was_loaded_stays_with_the_first_nodes(clock: Clock):
    holdings = Holdings()
    holdings.add(KEY, 1, LATER, Source.SEEN)
    index = Index(holdings, clock)
    index.place([view(1)])
    assert index.holds(URL)


def test_a_sighting_of_nothing_removes_what_was_seen(index: Index):
    index.saw([Seen(1, LATER, URL), Seen(2, LATER, URL), Seen(1, 0, URL)])
    assert index.holders(URL) == [2]


def test_against_a_live_store_log_a_sighting_of_nothing_counts_when_it_is_repeated(index: Index):
    index.apply(1, [stored()])
    index.saw([Seen(1, 0, URL)])
    assert record(index) == Holding(1, LATER, Source.SEEN)
    index.saw([Seen(1, 0, URL)])
    assert record(index) is None


def test_a_store_log_that_is_silent_for_long_is_not_believed_more_than_others(index: Index, clock: Clock):
    index.apply(1, [stored()])
    assert index.log_is_live(1)
    assert not index.log_is_live(2)
    index.apply(1, [])
    clock.now += LOG_LIVE_S
    assert not index.log_is_live(1)
    index.saw([Seen(1, 0, URL)])
    assert record(index) is None


def test_what_was_released_is_not_put_back_by_a_late_sighting(index: Index, clock: Clock):
    index.apply(1, [stored(), released()])
    index.saw([Seen(1, LATER, URL), Seen(2, LATER, URL)])
    assert index.holders(URL) == [2]
    clock.now += LATE_S * 2
    index.saw([Seen(1, LATER, URL)])
    assert index.holders(URL) == [1, 2]


def test_what_was_purged_is_not_put_back_by_a_late_sighting_of_any_node(index: Index, clock: Clock):
    index.saw([Seen(1, LATER, URL)])
    assert index.forget_url(URL) == 1
    clock.now += LATE_S - 0.1
    index.saw([Seen(1, LATER, URL), Seen(2, LATER, URL)])
    assert not index.holds(URL)
    index.apply(1, [stored()])
    assert index.holds(URL)


def test_what_was_released_and_stored_again_is_seen_at_once(index: Index):
    index.apply(1, [stored(), released(), stored(LATER + 5)])
    index.saw([Seen(1, LATER + 9, URL)])
    assert record(index) == Holding(1, LATER + 9, Source.STORE_LOG)


def test_a_clock_that_is_put_back_does_not_make_releases_last(index: Index, clock: Clock):
    index.apply(1, [stored(), released()])
    clock.now -= 86400
    index.saw([Seen(2, LATER, b"http://www.a.com/z")])
    clock.now += LATE_S * 2
    index.saw([Seen(1, LATER, URL)])
    assert index.holds(URL)


@pytest.mark.sources
def test_releases_are_remembered_in_bounds(index: Index, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_LATE_LIMIT", 10)
    for number in range(100):
        index.apply(1, [released(b"http://www.a.com/%d" % number)])
        assert len(index._gone._new) + len(index._gone._old) <= 20
    index.saw([Seen(1, LATER, b"http://www.a.com/99"), Seen(1, LATER, b"http://www.a.com/1")])
    assert record(index, url=b"http://www.a.com/99") is None
    assert record(index, url=b"http://www.a.com/1") is not None


def test_the_age_that_was_seen_stays_when_the_store_log_speaks_of_the_same_object(index: Index):
    index.saw([Seen(1, LATER - 50, URL)])
    index.apply(1, [stored()])
    assert record(index) == Holding(1, LATER - 50, Source.STORE_LOG)
    index.apply(1, [released(), stored()])
    assert record(index) == Holding(1, LATER, Source.STORE_LOG)


def test_the_store_log_is_believed_when_what_was_seen_is_stale_or_of_another_node(index: Index):
    index.saw([Seen(1, START - 1, URL), Seen(2, LATER - 50, URL)])
    index.apply(1, [stored()])
    assert record(index) == Holding(1, LATER, Source.STORE_LOG)


def test_a_sighting_renews_what_the_store_log_told(index: Index):
    index.apply(1, [stored()])
    index.saw([Seen(1, LATER + 100, URL)])
    assert record(index) == Holding(1, LATER + 100, Source.STORE_LOG)


def test_what_another_live_node_has_already_was_misrouted(index: Index):
    index.saw([Seen(1, LATER, URL), Seen(1, LATER, URL)])
    assert index.misrouted == 0
    index.saw([Seen(2, LATER, URL), Seen(2, LATER, URL)])
    assert index.misrouted == 1
    index.place([view(1, state="dead"), view(2, state="dead"), view(3)])
    index.saw([Seen(3, LATER, URL)])
    assert index.misrouted == 1  # nobody could have served it
    index.saw([Seen(1, 0, URL)])
    assert index.misrouted == 1


def test_where_rules_make_keys_the_key_is_looked_for_and_nothing_else(index: Index):
    rule = RuleConfig(host=("cdn?.x",), key_host="cdn.x", key_strip_query=("utm_*",))
    index.rules = compile_rules([rule])
    index.saw([Seen(1, LATER, b"http://cdn.x/a"), Seen(1, LATER, b"http://cdn2.x/old"), Seen(2, LATER, b"http://y/?utm_")])
    held = [b"http://cdn1.x/a", b"HTTP://CDN2.x:80/a?utm_s=1", b"http://cdn.x/a", b"http://y/?utm_"]
    others = [b"http://cdn2.x/old", b"http://cdn1.x/a?b", b"http://y/"]
    assert [index.holds(url) for url in held] == [True] * 4
    assert [index.holds(url) for url in others] == [False] * 3
    assert index.holds_all([*held, *others, b"no url"]) == [True] * 4 + [False] * 3 + [None]
    with pytest.raises(BadUrl):
        index.holds(b"no url")
    assert index.canonical(b"http://cdn7.x/?utm_a=1&b") == b"http://cdn.x/?b"
    assert index.holders(b"http://cdn9.x/a") == [1]
    assert index.forget_url(b"http://cdn9.x/a?utm_x") == 1
    assert not index.holds(b"http://cdn.x/a")

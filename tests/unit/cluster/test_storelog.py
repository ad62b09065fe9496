"""``StoreLog``: a real Squid's lines become events, everything else becomes a count."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.cluster.holdings import Holdings, Source, mask_of
from cachelb.cluster.storelog import LINES_LIMIT, Event, StoreLog, What, apply
from digest import store_key

VECTORS = Path(__file__).parents[2] / "vectors/storelog/squid57.txt"
NOW = 1795234877
KEY = "7F7F7A4F1B1F1CB79AAE1A82378AAB50"
LINE = (
    f"{NOW}.944 SWAPOUT 00 0000001B {KEY}  200 {NOW}        -1 {NOW + 3600} text/plain 1000/1000 GET http://a.com/x?y\n"
).encode()
BARE = f"{NOW}.008 RELEASE 00 00000005 {KEY}   ?         ?         ?         ? ?/? ?/? ? ?\n".encode()
PRIVATE = "1200000000000000EA5F000000000000"


def line(action: str = "SWAPOUT", key: str = KEY, where: str = "00 0000001B", status: int = 200, method: str = "GET",
         date: int = NOW, modified: int = -1, expires: int = NOW + 3600, url: str = "http://a.com/x") -> bytes:  # fmt: skip
    times = f"{date:9d} {modified:9d} {expires:9d}"
    return f"{NOW}.944 {action:7} {where} {key} {status:4d} {times} a/b 9/9 {method} {url}\n".encode()


def counted(data: bytes) -> dict[str, int]:
    log = StoreLog()
    log.read(data)
    return dict(log.counts)


def steps() -> dict[str, list[Event]]:
    """Events by what was done to the Squid."""
    found: dict[str, list[Event]] = {}
    log = StoreLog()
    for text in VECTORS.read_bytes().splitlines(keepends=True):
        if text.startswith(b"# "):
            now = found.setdefault(text[2:-1].decode(), [])
        else:
            now += log.read(text)
    return found


def test_every_line_of_a_real_squid_is_understood() -> None:
    lines = [text for text in VECTORS.read_bytes().splitlines(keepends=True) if not text.startswith(b"# ")]
    log = StoreLog()
    for text in lines:
        log.read(text)
    assert sum(log.counts.values()) == len(lines) > 90
    assert not [word for word in log.counts if word.startswith("bad") or word in ("cut", "excess")]
    assert log.counts["stored"] > 30
    assert log.counts["ended"] == 5
    assert log.counts["renewed"] == 2
    assert log.restarts == 4  # five Squids


@pytest.mark.parametrize(
    ("step", "events"),
    [
        ("warm", [What.STORED]),
        ("replace", [What.RELEASED, What.STORED]),
        ("purge", [What.RELEASED]),
        ("purge again", []),
        ("head of unknown", []),
        ("get after head", [What.STORED]),
        ("head nocache of known", [What.RELEASED]),
        ("post of known", []),
        ("range unknown", [What.STORED]),
        ("private", []),
        ("vary accept", [What.STORED, What.STORED]),
        ("purge vary", [What.RELEASED]),
        ("status 404", []),
        ("status 301", [What.STORED]),
        ("/11?st=206&ma=1000", []),
        ("/13?ma=1000&cut=50", [What.ENDED]),
        ("purge while read", []),
        ("replace while read", [What.STORED]),
        ("reader gone", [What.ENDED, What.ENDED]),
    ],
)
def test_what_was_done_to_a_real_squid_is_told(step: str, events: list[What]) -> None:
    assert [event.what for event in steps()[step]] == events


def test_the_keys_of_ended_and_renewed_objects_are_those_they_were_stored_under() -> None:
    told = steps()
    assert told["reader gone"][0].key == told["again"][0].key == told["big"][0].key
    assert told["reader gone"][0].expires == told["big"][0].expires
    assert told["reader gone"][1].expires == told["again"][0].expires != told["replace while read"][0].expires
    assert told["revalidate"][1].key == told["store"][0].key
    assert told["revalidate"][1].expires > told["store"][0].expires


def test_a_line_is_read_whole() -> None:
    assert StoreLog().read(LINE) == [Event(What.STORED, bytes.fromhex(KEY), NOW + 3600)]
    assert StoreLog().read(BARE) == [Event(What.RELEASED, bytes.fromhex(KEY))]


def test_several_lines_in_one_datagram_keep_their_order() -> None:
    events = StoreLog().read(LINE + b"garbage\n" + BARE + LINE)
    assert [event.what for event in events] == [What.STORED, What.RELEASED, What.STORED]


@pytest.mark.parametrize("cut", range(1, len(LINE)))
def test_every_truncation_is_counted_and_skipped(cut: int) -> None:
    log = StoreLog()
    assert log.read(LINE[:cut]) == []
    assert dict(log.counts) == {"cut": 1}


@pytest.mark.parametrize("cut", range(len(LINE) - len("http://a.com/x?y\n")))
def test_every_truncation_before_the_url_is_bad_with_a_newline_too(cut: int) -> None:
    log = StoreLog()
    assert log.read(LINE[:cut] + b"\n") == []
    assert sum(log.counts[word] for word in ("bad_line", "bad_key", "bad_action")) == 1


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\n", "bad_line"),
        (b"hello\n", "bad_line"),
        (LINE.replace(b"SWAPOUT", b"SWAPPED"), "bad_action"),
        (LINE.replace(KEY.encode(), KEY[:-1].encode()), "bad_key"),
        (LINE.replace(KEY.encode(), KEY.encode() + b"0"), "bad_key"),
        (LINE.replace(KEY.encode(), KEY.lower().encode()), "bad_key"),
        (LINE.replace(b"7F7F7A", b"7G7F7A"), "bad_key"),
        (LINE.replace(b"7F7F7A", b"\xd9\xa37F7F"), "bad_key"),  # a digit elsewhere
        (LINE.replace(b"GET", b"GET x"), "bad_line"),
        (LINE.replace(b".944", b""), "bad_line"),
        (LINE.replace(b"\n", b"\r\n"), "stored"),  # the URL's business
        (b"\x00" * 60 + b"\n", "bad_line"),
        (LINE[:-1] + b" more\n", "bad_line"),
        (line(date=9999999999), "bad_number"),
        (line(expires=-(1 << 31) - 1), "bad_number"),
    ],
)
def test_what_makes_no_sense_is_counted_by_kind(data: bytes, word: str) -> None:
    assert counted(data) == {word: 1}


def test_more_lines_than_the_limit_are_not_read() -> None:
    log = StoreLog()
    assert len(log.read(LINE * (LINES_LIMIT + 5))) == LINES_LIMIT
    assert log.counts["excess"] == 1
    assert len(log.read(LINE * LINES_LIMIT)) == LINES_LIMIT
    assert log.counts["excess"] == 1


@pytest.mark.parametrize("method", ["HEAD", "PURGE", "POST", "NONE"])
@pytest.mark.parametrize("action", ["SWAPOUT", "RELEASE"])
def test_only_get_counts(action: str, method: str) -> None:
    assert counted(line(action, method=method)) == {"method": 1}


@pytest.mark.parametrize("action", ["SO_FAIL", "CREATE", "SWAPIN"])
def test_other_actions_say_nothing_of_the_disk(action: str) -> None:
    assert counted(line(action)) == {"action": 1}


def test_answers_that_were_never_stored_are_private() -> None:
    never = "-1 FFFFFFFF"
    assert counted(line("RELEASE", PRIVATE, never)) == {"private": 1}
    assert counted(line("SWAPOUT", PRIVATE, never)) == {"private": 1}
    assert counted(BARE.replace(KEY.encode(), PRIVATE.encode())) == {"private": 1}


def test_an_object_that_ends_under_a_private_key_is_known_by_its_url() -> None:
    (event,) = StoreLog().read(line("RELEASE", PRIVATE))
    assert event == Event(What.ENDED, store_key(b"http://a.com/x"), NOW + 3600)


def test_a_304_renews_when_it_says_until_when() -> None:
    (event,) = StoreLog().read(line("RELEASE", PRIVATE, "-1 FFFFFFFF", 304))
    assert event == Event(What.RENEWED, store_key(b"http://a.com/x"), NOW + 3600)
    assert counted(line("RELEASE", PRIVATE, "-1 FFFFFFFF", 304, expires=-1)) == {"private": 1}


def test_a_restarted_squid_is_noticed_by_its_process_id() -> None:
    log = StoreLog()
    other = PRIVATE.replace("EA5F", "EB5F")
    worker = other[:-8] + "02000000"
    for key, restarts in ((PRIVATE, 0), (PRIVATE, 0), (other, 1), (other, 1), (worker, 1), (PRIVATE, 2)):
        log.read(line("RELEASE", key, "-1 FFFFFFFF"))
        assert log.restarts == restarts


def test_an_md5_is_not_taken_for_a_private_key() -> None:
    for number in range(2000):
        key = store_key(b"http://a.com/%d" % number)
        assert StoreLog().read(line("RELEASE", key.hex().upper())) == [Event(What.RELEASED, key)]


@pytest.mark.parametrize(
    ("date", "modified", "expires", "until"),
    [
        (NOW, -1, NOW + 100, NOW + 100),
        (NOW - 7200, -1, NOW + 2800, NOW + 2800),  # a Date of the last day is believed
        (NOW + 7200, -1, NOW + 17200, NOW + 10000),  # one in the future is not
        (NOW - 90000, -1, NOW - 80000, NOW + 10000),  # nor an older one
        (-1, -1, NOW + 50, NOW + 50),
        (NOW, -1, NOW, NOW),
        (NOW, -1, 0, 1),
        (NOW, -1, -1, NOW),  # nothing to go by: stale at once
        (NOW, NOW - 1000, -1, NOW + 200),
        (NOW, 0, -1, NOW + 259200),
        (NOW, NOW + 5, -1, NOW),
        (NOW - 100, NOW - 1100, -1, NOW + 100),
        (NOW, -1, -1283980106, (1 << 32) - 1283980106),  # after 2038
        (NOW, -1599967296, -1, NOW),
    ],
)
def test_an_object_is_fresh_as_long_as_squid_says(date: int, modified: int, expires: int, until: int) -> None:
    (event,) = StoreLog().read(line(date=date, modified=modified, expires=expires))
    assert event.expires == until


def test_without_a_heuristic_the_freshness_is_unknown() -> None:
    (event,) = StoreLog(None).read(line(modified=NOW - 1000, expires=-1))
    assert event.expires == 0


def test_applied_events_are_what_the_table_says() -> None:
    log, holdings = StoreLog(), Holdings()
    key = store_key(b"http://a.com/x")
    public = key.hex().upper()

    def held(data: bytes, after_s: int = 0) -> bool:
        apply(log.read(data), holdings, 2)
        return holdings.holds(key, NOW + after_s, mask_of([2]))

    holdings.add(key, 2, NOW + 9999, Source.SEEN)
    assert held(line(key=public))
    assert not held(b"", 3600)  # what was seen of the object before this one is no longer true
    assert held(line("RELEASE", PRIVATE, status=304, expires=NOW + 7200), 3600)
    assert held(line("RELEASE", PRIVATE, expires=NOW + 3600))
    assert not held(line("RELEASE", PRIVATE, expires=NOW + 7200))
    assert held(line(key=public))
    assert not held(line("RELEASE", public))
    assert not held(line("RELEASE", PRIVATE, status=304))


@given(st.binary(max_size=300))
def test_garbage_never_raises(data: bytes) -> None:
    log = StoreLog()
    assert log.read(data) == []
    assert sum(log.counts.values()) == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


@given(st.lists(st.sampled_from(re.findall(rb"\S+| +|\n", LINE + BARE)), max_size=60))
def test_pieces_of_lines_in_any_order_never_raise(pieces: list[bytes]) -> None:
    for event in StoreLog().read(b"".join(pieces)):
        assert len(event.key) == 16
        assert 0 <= event.expires < 1 << 32

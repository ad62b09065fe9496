"""``Trial``: what a digest says of its node's records."""

from __future__ import annotations

from dataclasses import replace
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.cluster.record import BUCKETS, GONE, MARK_OLD, MARK_RECENT, Source
from cachelb.cluster.trial import SAMPLE, Terms, Trial, Verdict, read_digest
from digest import BadDigest, Mask, build, pack_digest

NOW = 1_800_000_000
FRESH = NOW + 10_000  # testable
SHORT = NOW + 100  # not
SEEN, DIGEST, LOG = (int(source) for source in Source)
NEXT = Terms(NOW + 3600, follows=True)  # a digest like most: neither first nor after a restart
FIRST = replace(NEXT, follows=False)
RESTART = replace(NEXT, settles=True, follows=False)


def key(number: int) -> bytes:
    return md5(b"%d" % number, usedforsecurity=False).digest()


def mask_with(numbers: range) -> Mask:
    mask = Mask(4096)
    for number in numbers:
        mask.add(key(number))
    return mask


def trial(held: range, terms: Terms, records: dict[int, tuple[int, int]]) -> tuple[Trial, dict[int, int]]:
    """Try records (number -> time and mark) by a digest of `held`: the trial, and the new marks."""
    mask = mask_with(held)
    made = Trial(mask, mask.false_positives, terms)
    keys = b"".join(map(key, records))
    times, marks = [list(column) for column in zip(*records.values(), strict=True)] if records else ([], [])
    assert made.judge(keys, times, marks) == marks  # only looked at
    made.passed(made.left)
    assert made.verdict is not None
    assert made.left == BUCKETS
    new = made.judge(keys, times, marks)
    made.passed(BUCKETS)
    assert made.left == 0
    return made, dict(zip(records, new, strict=True))


def of_one(terms: Terms, mark: int, expires: int = FRESH, is_in: bool = False) -> int:
    """The new mark of a record among many that are in the digest."""
    others = dict.fromkeys(range(100), (FRESH, DIGEST))
    made, new = trial(range(101 if is_in else 100), terms, others | {100: (expires, mark)})
    assert made.verdict is Verdict.KEPT
    return new[100]


@pytest.mark.parametrize("terms", [NEXT, FIRST, RESTART])
@pytest.mark.parametrize("mark", [SEEN, SEEN | MARK_RECENT, DIGEST, SEEN | MARK_OLD])
@pytest.mark.parametrize("expires", [FRESH, SHORT, 0])
def test_what_is_in_the_digest_is_confirmed(terms: Terms, mark: int, expires: int):
    assert of_one(terms, mark, expires, is_in=True) == DIGEST


@pytest.mark.parametrize(
    ("terms", "mark", "expires", "new"),
    [
        (NEXT, DIGEST, FRESH, GONE),
        (NEXT, SEEN, FRESH, GONE),
        (NEXT, SEEN | MARK_RECENT, FRESH, SEEN),  # may be younger than the digest; with the next one it is not
        (NEXT, DIGEST | MARK_RECENT, FRESH, DIGEST),
        (NEXT, SEEN, SHORT, SEEN),  # is not in the digest anyway
        (NEXT, SEEN, 0, SEEN),  # may be stale, and then is not in it
        (NEXT, SEEN | MARK_RECENT, SHORT, SEEN),
        (FIRST, DIGEST, FRESH, DIGEST),  # this digest may be older than the record
        (FIRST, SEEN | MARK_RECENT, FRESH, SEEN),
        (FIRST, SEEN | MARK_OLD, FRESH, SEEN),  # there was no restart
        (RESTART, SEEN | MARK_OLD, FRESH, GONE),
        (RESTART, SEEN | MARK_OLD | MARK_RECENT, FRESH, GONE),  # no second chance: the disk is as it is
        (RESTART, LOG | MARK_OLD | MARK_RECENT, FRESH, GONE),
        (RESTART, SEEN | MARK_OLD, SHORT, SEEN),
        (RESTART, SEEN | MARK_RECENT, FRESH, SEEN),  # recorded since
    ],
)
def test_what_is_missing(terms: Terms, mark: int, expires: int, new: int):
    assert of_one(terms, mark, expires) == new


@pytest.mark.parametrize("mark", [LOG, LOG | MARK_RECENT, LOG | MARK_OLD])
def test_what_a_live_store_log_told_is_left_alone_but_after_a_restart(mark: int):
    terms = replace(NEXT, spares_log=True)
    assert of_one(terms, mark) == mark & ~MARK_OLD
    assert of_one(NEXT, mark) == (LOG if mark & MARK_RECENT else GONE)
    assert of_one(replace(terms, settles=True), mark) == (GONE if mark & MARK_OLD else mark)
    assert of_one(terms, SEEN) == GONE
    assert of_one(terms, mark, is_in=True) == LOG


@pytest.mark.parametrize(("start", "is_left"), [("ff1f", 1), ("ffff", 1), ("ff0f", 0), ("fe1f", 0), ("1fff", 0)])
def test_of_the_last_bucket_of_squids_table_only_an_emptied_node_tells(start: str, is_left: int):
    record = bytes.fromhex(start).ljust(16, b"\0")
    keys = b"".join(map(key, range(100))) + record
    for terms, held, mark, verdict in [(NEXT, range(100), SEEN, "kept"), (RESTART, range(0), SEEN | MARK_OLD, "emptied")]:
        made = Trial(mask_with(held), 0.0, terms)
        for _ in range(2):
            marks = made.judge(keys, [FRESH] * 101, [mark] * 101)
            made.passed(made.left)
        assert made.verdict is Verdict(verdict)
        assert marks[100] == (SEEN if is_left and verdict == "kept" else GONE)


def test_a_node_that_was_emptied_holds_what_is_in_its_digest_and_nothing_else():
    records = {number: ((FRESH, SHORT, 0)[number % 3], SEEN | MARK_OLD) for number in range(300)}
    records |= dict.fromkeys(range(300, 310), (FRESH, SEEN | MARK_RECENT))
    made, new = trial(range(10), RESTART, records)
    assert made.verdict is Verdict.EMPTIED
    assert made.removed == 290
    assert {number for number, mark in new.items() if mark == GONE} == set(range(10, 300))
    assert {new[number] for number in range(300, 310)} == {SEEN}  # recorded since


def test_a_node_whose_digest_knew_its_objects_and_knows_none_was_emptied():
    records = dict.fromkeys(range(100), (FRESH, DIGEST)) | {100: (SHORT, SEEN), 101: (FRESH, SEEN | MARK_RECENT)}
    before, _ = trial(range(95), NEXT, records)
    assert before.is_trusted
    made, new = trial(range(0), replace(NEXT, is_trusted=True), records)
    assert made.verdict is Verdict.EMPTIED
    assert set(new.values()) == {GONE}
    assert not made.is_trusted  # it cannot be emptied twice in a row


def test_a_digest_that_never_knew_the_nodes_objects_says_nothing():
    records = dict.fromkeys(range(100), (FRESH, SEEN)) | {100: (FRESH, SEEN | MARK_OLD | MARK_RECENT)}
    made, new = trial(range(5), NEXT, records)
    assert made.verdict is Verdict.MUTE
    assert not made.is_trusted
    assert made.removed == 0
    assert new == dict.fromkeys(range(100), SEEN) | {100: SEEN | MARK_RECENT}


@pytest.mark.parametrize(("known", "verdict"), [(19, Verdict.KEPT), (20, Verdict.EMPTIED)])
def test_a_few_records_are_no_sample(known: int, verdict: Verdict):
    made, new = trial(range(0), RESTART, dict.fromkeys(range(known), (FRESH, SEEN | MARK_OLD)) | {99: (0, MARK_OLD)})
    assert made.verdict is verdict
    assert [new[number] for number in range(known)] == [GONE] * known
    assert new[99] == (SEEN if verdict is Verdict.KEPT else GONE)


@pytest.mark.parametrize(
    ("held", "verdict", "removed"), [(10, Verdict.EMPTIED, 110), (30, Verdict.KEPT, 70), (80, Verdict.KEPT, 20)]
)
def test_a_restarted_node_keeps_untestable_records_unless_it_was_emptied(held: int, verdict: Verdict, removed: int):
    records = {number: (FRESH if number < 100 else SHORT, SEEN | MARK_OLD) for number in range(120)}
    made, _ = trial(range(held), RESTART, records)
    assert (made.verdict, made.removed) == (verdict, removed)


def test_false_positives_do_not_hide_that_a_node_was_emptied():
    mask = Mask(512)
    mask.add_many(b"".join(key(number) for number in range(10_000, 11_400)))
    assert 0.2 < mask.false_positives < 0.6
    made = Trial(mask, mask.false_positives, replace(RESTART, is_trusted=True))
    keys = b"".join(key(number) for number in range(1000))
    made.judge(keys, [FRESH] * 1000, [MARK_OLD] * 1000)
    made.passed(1)
    assert made.verdict is Verdict.EMPTIED
    assert made.share < 0.1
    assert set(made.judge(keys, [FRESH] * 1000, [MARK_OLD] * 1000)) == {GONE}  # nor keep what they seem to confirm


def test_the_look_ends_when_it_has_seen_enough():
    made = Trial(mask_with(range(10)), 0.0, NEXT)
    made.judge(key(1) * (SAMPLE - 1), [FRESH] * (SAMPLE - 1), [SEEN] * (SAMPLE - 1))
    made.passed(1)
    assert (made.verdict, made.left) == (None, BUCKETS - 1)
    made.judge(key(1), [FRESH], [SEEN])
    made.passed(1)
    assert (made.verdict, made.left) == (Verdict.KEPT, BUCKETS)


@given(
    st.lists(st.tuples(st.sampled_from([FRESH, SHORT, 0]), st.integers(0, 15).filter(lambda mark: mark & 3 < 3)), max_size=60),
    st.integers(0, 60),
    st.tuples(*[st.booleans()] * 4),
)
def test_no_digest_touches_what_it_contains_and_marks_stay_marks(
    records: list[tuple[int, int]], held: int, terms: tuple[bool, bool, bool, bool]
):
    made, new = trial(range(held), Terms(NOW + 3600, *terms), dict(enumerate(records)))
    for number, mark in new.items():
        assert mark == GONE or 0 <= mark < 8
        if number < held and made.verdict is not Verdict.MUTE:
            assert mark in (DIGEST, LOG)
        if mark == GONE and records[number][0] != FRESH:
            assert made.verdict is Verdict.EMPTIED
    assert made.removed == list(new.values()).count(GONE)


def test_equal_digests_have_equal_seals_and_what_says_yes_to_all_is_refused():
    some, others = (pack_digest(build(b"".join(map(key, numbers)), 8)) for numbers in (range(100), range(100, 200)))
    read = read_digest(some, 1 << 20)
    assert read.digest.mask.contains(key(1))
    assert read.fill == read.digest.mask.fill
    assert read.seal == read_digest(some, 1 << 20).seal != read_digest(others, 1 << 20).seal
    with pytest.raises(BadDigest, match="100% of its bits are set"):
        read_digest(some[:128] + b"\xff" * (len(some) - 128), 1 << 20)
    with pytest.raises(BadDigest):
        read_digest(some, 10)

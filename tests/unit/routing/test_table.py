"""Tables by name."""

from __future__ import annotations

import pytest

from cachelb.routing.carp import Carp
from cachelb.routing.ring import Member, Ring
from cachelb.routing.table import ALGORITHMS, LatestTable, make_table

MEMBERS = [Member("a", 1), Member("b", 2)]


@pytest.mark.parametrize(("name", "kind"), [("ring", Ring), ("carp", Carp)])
def test_each_algorithm_is_made_by_its_name(name: str, kind: type) -> None:
    assert type(make_table(name, MEMBERS)) is kind


def test_an_unknown_algorithm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown algorithm 'maglev'; there are ring, carp"):
        make_table("maglev", MEMBERS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_all_tables_answer_alike(name: str) -> None:
    table = make_table(name, MEMBERS)
    key = b"http://www.example.com/"
    assert table.owners(key, 2)[0] == table.owner(key)
    assert sorted(table.owners(key, 9)) == [0, 1]
    assert 0 <= table.fraction(key) < 1
    assert 0 <= table.place(key) < 2**32
    assert len(table.digest()) == 16
    assert sum(table.shares()) == pytest.approx(1.0)


def test_two_algorithms_never_have_one_fingerprint() -> None:
    assert len({make_table(name, MEMBERS).digest() for name in ALGORITHMS}) == len(ALGORITHMS)


def test_the_latest_table_is_made_anew_only_when_it_must() -> None:
    latest = LatestTable()
    first = latest.renew("ring", MEMBERS)
    assert first is not None
    assert latest.renew("ring", list(MEMBERS)) is first
    for algorithm, members in (("carp", MEMBERS), ("ring", MEMBERS[::-1]), ("ring", [Member("a", 2), Member("b", 2)])):
        other = latest.renew(algorithm, members)
        assert other is latest.table
        assert other is not first
    assert latest.renew("ring", []) is None


def test_members_that_make_no_table_leave_the_latest_one() -> None:
    latest = LatestTable()
    first = latest.renew("ring", MEMBERS)
    with pytest.raises(ValueError, match="same name"):
        latest.renew("ring", [MEMBERS[0], MEMBERS[0]])
    assert latest.table is first
    assert latest.renew("ring", MEMBERS) is first

from __future__ import annotations

import pytest
from cachelb.tools.bench.fronts import USUAL
from cachelb.tools.bench.tables import TABLES, base_of, short, table_of

FRONTS = ["nginx", "haproxy", "squid", "cachelb"]


def test_the_base_is_haproxy_or_else_the_first():
    assert base_of(FRONTS) == "haproxy"
    assert base_of(["nginx", "cachelb"]) == "nginx"


@pytest.mark.parametrize("name", TABLES)
def test_every_case_is_compared_with_one_of_its_table(name: str):
    table = table_of(name, FRONTS)
    labels = [case.label for case in table.cases]
    assert len(set(labels)) == len(labels)
    assert {case.base for case in table.cases} <= set(labels)


def test_scenarios_compare_front_ends_and_the_others_each_with_itself():
    assert table_of("small", FRONTS).against == "haproxy"
    assert table_of("log", FRONTS).against == "first"


def test_what_differs_is_what_the_table_is_about():
    (off, on), (few, many) = (table_of(name, ["cachelb"]).cases for name in ("log", "nodes"))
    assert (off.setting, on.setting) == (USUAL, USUAL._replace(log=True))
    assert (few.setting, many.setting) == (USUAL, USUAL._replace(nodes=1000))
    none, one = table_of("cookies", ["cachelb"]).cases
    assert (none.scenario.cookies, one.scenario.cookies) == (False, True)
    assert [case.scenario.urls for case in table_of("urls", ["cachelb"]).cases] == [1000, 1_000_000, 10_000_000]


def test_squid_is_not_asked_to_try_a_thousand_nodes():
    assert "squid" not in {case.front for case in table_of("nodes", FRONTS).cases}


def test_numbers_are_short():
    assert [short(number) for number in (7, 1000, 10_000_000)] == ["7", "1k", "10M"]

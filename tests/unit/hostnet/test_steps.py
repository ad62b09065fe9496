from __future__ import annotations

from cachelb.hostnet.steps import Foreign, Found, HostError, Step, conflicts, removal, steps
from cachelb.hostnet.wanted import AddressEntry, Entry, RouteEntry, RuleEntry, RulesetEntry, Wanted

ADDRESS = AddressEntry("10.0.0.100", 32, "eth0")
RULE = RuleEntry(4, 3128, 0x2000, 0x2000, 3128)
ROUTE = RouteEntry(4, 3128)
TABLE = RulesetEntry("new", "table")
WANTED = Wanted((ADDRESS, RULE, ROUTE, TABLE), 3128, 3128, 0x2000)
ONLY_ADDRESS = WANTED._replace(entries=(ADDRESS,))


def found(*ours: Entry, foreign: tuple[Foreign, ...] = (), interfaces: tuple[str, ...] = ("lo", "eth0")) -> Found:
    return Found(ours, foreign, frozenset(interfaces))


def test_on_a_bare_host_all_is_added_in_order():
    assert steps(WANTED, found()) == [Step(True, entry) for entry in WANTED.entries]


def test_what_is_there_is_left_alone():
    assert steps(WANTED, found(*WANTED.entries)) == []
    assert steps(WANTED, found(ADDRESS, ROUTE, RulesetEntry("new"))) == [Step(True, RULE)]


def test_what_is_left_over_goes_first_and_a_table_is_replaced_at_once():
    old = RuleEntry(4, 77, 0x2000, 0x2000, 3128)
    other = AddressEntry("10.0.0.99", 32, "eth0")
    assert steps(WANTED, found(ADDRESS, other, old, ROUTE, RulesetEntry("old"))) == [
        Step(False, old), Step(False, other), Step(True, RULE), Step(True, TABLE),
    ]  # fmt: skip


def test_a_table_that_nobody_wants_any_more_goes():
    assert steps(ONLY_ADDRESS, found(ADDRESS, RulesetEntry("old"))) == [Step(False, RulesetEntry("old"))]


def test_all_of_ours_is_removed_in_the_reverse_order():
    assert removal(found(ADDRESS, RULE, ROUTE, TABLE)) == [Step(False, entry) for entry in (TABLE, ROUTE, RULE, ADDRESS)]


def test_a_step_can_be_undone_and_shown():
    step = Step(True, RULE)
    assert step.undone == Step(False, RULE)
    assert step.command == RULE.added_by()
    assert step.undone.command == RULE.removed_by()
    assert str(step.undone) == "remove IPv4 rule 3128: fwmark 0x2000/0x2000 lookup 3128"


def said(want: Wanted, *others: Entry, interfaces: tuple[str, ...] = ("lo", "eth0")) -> list[str]:
    return conflicts(want, found(foreign=tuple(Foreign(other, '"as it is"') for other in others), interfaces=interfaces))


def test_a_missing_interface_is_named_with_those_that_there_are():
    assert said(ONLY_ADDRESS, interfaces=("lo", "eth1")) == [
        "this host has no interface eth0, for the address 10.0.0.100; it has eth1, lo"
    ]


def test_an_address_that_is_somebody_elses_is_refused_wherever_it_is():
    other = AddressEntry("10.0.0.100", 24, "eth1")
    assert said(WANTED, other) == ["10.0.0.100 is an address of eth1 already, and it was not cachelb that has put it there"]
    assert said(WANTED, AddressEntry("10.0.0.1", 24, "eth0")) == []


def test_rules_of_our_priority_or_our_mark_are_refused():
    assert said(WANTED, RuleEntry(6, 3128, 0, 0, 100)) == [
        'the IPv6 rule 3128 is somebody else\'s: "as it is"; choose another [hostnet] priority'
    ]
    for mark, mask in ((0x2000, 0x2000), (0x2000, 0xFFFFFFFF), (0x2000, 0xF000)):
        assert said(WANTED, RuleEntry(4, 50, mark, mask, 100)) == [
            'the IPv4 rule 50 means the mark 0x2000, too: "as it is"; choose another [hostnet] mark'
        ]
    for mark, mask in ((0, 0), (0x4000, 0x4000), (0x3000, 0xF000), (0, 0x2000)):
        assert said(WANTED, RuleEntry(4, 50, mark, mask, 100)) == []


def test_routes_in_our_table_and_a_table_of_our_name_are_refused():
    assert said(WANTED, RouteEntry(4, 3128)) == [
        'table 3128 has a route of somebody else: "as it is"; choose another [hostnet] table'
    ]
    assert said(WANTED, RouteEntry(4, 254)) == []
    [text] = said(WANTED, RulesetEntry(""))
    assert text.startswith("there is an nftables table inet cachelb already")


def test_who_only_wants_an_address_is_not_kept_from_it_by_rules():
    assert said(ONLY_ADDRESS, RuleEntry(4, 3128, 1, 1, 1), RouteEntry(4, 3128), RulesetEntry("")) == []


def test_an_error_has_all_its_reasons():
    error = HostError("one", "two")
    assert str(error) == "one; two"
    assert error.problems == ("one", "two")

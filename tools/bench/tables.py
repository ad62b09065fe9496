"""What is compared with what: a table is a list of cases that take turns, each with the case that it is compared with.

For the scenarios of ``load`` the cases are the front ends, and all are compared with HAProxy.  For others each front end
is compared with itself:

    log      requests logged to a file, and metrics fetched twice a second, against neither
    nodes    1,000 nodes against 3.  All connections to nodes are there before it begins: a run that does not count fills
             the pools, which are large enough to close none.  Squid is left out: it tries a thousand peers in turn
    urls     a million and ten million different URLs, drawn at random, against 1,000
    cookies  requests none of which has the fields of another, against those of 50 clients
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .fronts import USUAL, Setting
from .load import SCENARIOS, Scenario

BASE = "haproxy"
MANY_NODES = 1000
URLS = (1_000, 1_000_000, 10_000_000)


class Case(NamedTuple):
    """base: the label of the case that it is compared with."""

    label: str
    front: str
    scenario: Scenario
    base: str
    setting: Setting = USUAL


class Table(NamedTuple):
    """cases: in the order of their turns.  warm: each has a run before that does not count.  memory: shown as well."""

    name: str
    title: str
    cases: tuple[Case, ...]
    warm: bool = False
    memory: bool = False

    @property
    def against(self) -> str:
        """What ratios are to, for the head of their column."""
        bases = {case.base for case in self.cases}
        return bases.pop() if len(bases) == 1 else "first"


def base_of(fronts: Sequence[str]) -> str:
    """The front end that the others are compared with: HAProxy, or the first one."""
    return BASE if BASE in fronts else fronts[0]


def _scenario(name: str, fronts: Sequence[str]) -> Table:
    scenario, base = SCENARIOS[name], base_of(fronts)
    return Table(name, scenario.title, tuple(Case(front, front, scenario, base) for front in fronts))


def _log(fronts: Sequence[str]) -> Table:
    small = SCENARIOS["small"]
    cases = []
    for front in fronts:
        cases.append(Case(front, front, small, front))
        cases.append(Case(f"{front}, log", front, small, front, USUAL._replace(log=True)))
    return Table("log", f"log: access log and metrics on; {small.title}", tuple(cases))


def _nodes(fronts: Sequence[str]) -> Table:
    small = SCENARIOS["small"]
    cases = []
    for front in fronts:
        if front != "squid":
            cases.append(Case(front, front, small, front))
            cases.append(Case(f"{front}, {MANY_NODES}", front, small, front, USUAL._replace(nodes=MANY_NODES)))
    return Table("nodes", f"nodes: 3 and {MANY_NODES:,}; {small.title}", tuple(cases), warm=True)


def _urls(fronts: Sequence[str]) -> Table:
    cases = []
    for front in fronts:
        first = f"{front}, {short(URLS[0])}"
        for urls in URLS:
            scenario = SCENARIOS["small"]._replace(urls=urls)
            cases.append(Case(f"{front}, {short(urls)}", front, scenario, first))
    return Table("urls", f"urls: different ones; {SCENARIOS['small'].title}", tuple(cases), warm=True, memory=True)


def _cookies(fronts: Sequence[str]) -> Table:
    small = SCENARIOS["small"]
    cases = []
    for front in fronts:
        cases.append(Case(front, front, small, front))
        cases.append(Case(f"{front}, cookies", front, small._replace(cookies=True), front))
    return Table("cookies", f"cookies: none, and another one in each request; {small.title}", tuple(cases), warm=True)


def short(number: int) -> str:
    """1000 as "1k", 10,000,000 as "10M"."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= unit:
            return f"{number // unit}{letter}"
    return str(number)


_BUILDERS = {"log": _log, "nodes": _nodes, "urls": _urls, "cookies": _cookies}
TABLES = (*SCENARIOS, *_BUILDERS)


def table_of(name: str, fronts: Sequence[str]) -> Table:
    """The table of this name for these front ends."""
    return _BUILDERS[name](fronts) if name in _BUILDERS else _scenario(name, fronts)

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from cachelb.config import parse
from cachelb.explain import explain
from cachelb.routing.ring import Member
from cachelb.routing.table import make_table
from cachelb.simulate.policies import POLICIES, Node, owner_of, owners, turns

URLS = [b"http://a.example/%d" % n for n in range(3000)]
THREE = [Node("cache1"), Node("cache2"), Node("cache3")]


def test_the_directors_algorithms_and_two_others_are_there():
    assert POLICIES == ("ring", "carp", "modulo", "round-robin")


@pytest.mark.parametrize("policy", ["ring", "carp"])
def test_the_directors_policies_have_its_owners(policy: str):
    table = make_table(policy, [Member("cache1", 1), Member("cache2", 1), Member("cache3", 2)])
    nodes = [*THREE[:2], Node("cache3", 2.0)]
    assert list(owners(policy, nodes, URLS)) == [table.owner(url) for url in URLS]


@pytest.mark.parametrize("policy", ["ring", "carp"])
@pytest.mark.parametrize("states", [("down", "up", "up"), ("drain", "up", "up"), ("drain", "down", "down")])
def test_states_count_as_in_the_director(policy: str, states: tuple[str, ...]):
    tables = "".join(
        f'[[node]]\nname = "cache{n}"\nhost = "10.0.0.{n}"\nstate = "{state}"\n' for n, state in enumerate(states, 1)
    )
    config = parse(f'[hash]\nalgorithm = "{policy}"\n{tables}', "c")
    owner = owner_of(policy, [Node(node.name, node.weight, node.state) for node in config.node])
    for url in URLS[:50]:
        assert explain(config, url.decode()).to[0] == THREE[owner(url)].name


@pytest.mark.parametrize("policy", ["ring", "modulo"])
def test_nobody_owns_what_no_node_takes(policy: str):
    assert owner_of(policy, [Node("a", state="down"), Node("b", weight=0.0)])(URLS[0]) == -1


def test_modulo_follows_weights_and_states():
    counts = Counter(owners("modulo", [Node("a", 1.0), Node("b", 2.5), Node("c", 1.0, "down")], URLS))
    assert counts[2] == 0
    assert 2.2 < counts[1] / counts[0] < 2.8


def test_modulo_moves_most_urls_when_a_node_comes():
    before, after = owners("modulo", THREE, URLS), owners("modulo", [*THREE, Node("cache4")], URLS)
    assert 0.7 < sum(map(int.__ne__, before, after)) / len(URLS) < 0.8


def test_round_robin_takes_turns():
    assert list(islice(turns(THREE), 7)) == [0, 1, 2, 0, 1, 2, 0]
    assert list(islice(turns([Node("a", 2), Node("b", 1), Node("c", 1, "drain")]), 6)) == [0, 1, 0, 0, 1, 0]
    assert list(islice(turns([Node("a", 1, "drain"), Node("c", 1, "down")]), 2)) == [0, 0]


def test_turns_stay_short_whatever_the_weights():
    order = list(islice(turns([Node(f"n{n}", 256.0) for n in range(99)] + [Node("x", 0.01)]), 10_000))
    assert set(order) == set(range(100))


def test_an_unknown_policy_is_told():
    with pytest.raises(ValueError, match="unknown algorithm 'sticky'"):
        owner_of("sticky", THREE)

"""What sections say of each other: each mistake with its place, all at once, and what is probably not meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachelb.config import load_with_warnings, parse
from cachelb.config_links import doubts
from cachelb.config_text import dotted
from cachelb.errors import ConfigError

NODES = "".join(f'[[node]]\nname = "{name}"\nhost = "10.0.0.{i}"\n' for i, name in enumerate("abc", 1))
POOLS = NODES + '[[pool]]\nname = "p"\nnodes = ["a", "b"]\n[[pool]]\nname = "q"\nnodes = "c"\n'


def problems(text: str) -> list[str]:
    try:
        parse(text, "c")
    except ConfigError as exc:
        return str(exc).splitlines()
    return []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rule]]\npool = "P"\n', 'rule[1].pool: there is no pool "P" (there are p, q)'),
        ('[[rule]]\npool = "pp"\n', "did you mean p?"),
        ('[[rule]]\naffinity = "g"\n', 'rule[1].affinity: there is no group "g" (there is no [[affinity]] at all)'),
        ('[[rule]]\ncookie = ["x"]\n', 'rule[1].cookie[1]: there is no cookie "x"'),
        ('[[rule]]\ncookie = "x"\n', 'rule[1].cookie: there is no cookie "x"'),
        ('[[tcp]]\nname = "t"\nlisten = "0.0.0.0:21"\npool = "x"\n', 'tcp[1].pool: there is no pool "x"'),
        ('[[tcp]]\nname = "t"\nlisten = "0.0.0.0:21"\ntls = "sni"\npools = { "a.b" = "x" }\n', 'there is no pool "x"'),
        ('[[pool]]\nname = "r"\nnodes = ["a", "x"]\n', 'pool[3].nodes[2]: there is no node "x"'),
        ('[[pool]]\nname = "r"\nnodes = []\n', "pool[3].nodes: is empty: the pool has no nodes"),
        ('[[pool]]\nname = "r"\nnodes = ["a", "a"]\n', 'pool[3].nodes[2]: "a" is in this pool twice'),
        ('[[pool]]\nname = "r"\nnodes = ["a"]\nweights = { a = 0 }\n', "every node of the pool has weight 0"),
        ('[[pool]]\nname = "r"\nnodes = ["a"]\nweights = { b = 2 }\n', 'pool[3].weights.b: "b" is not in the pool'),
        ('[[pool]]\nname = "p"\nnodes = ["a"]\n', 'pool[3].name: "p" is the name of pool[1], too'),
        (
            '[intercept]\nspoof = "both"\n[[node]]\nname = "d"\nhost = "10.0.0.4"\nsend_proxy = "v2"\n',
            "node[4].send_proxy: cannot be with [intercept] spoof",
        ),
        ('[[rule]]\nname = "x"\n[[rule]]\nname = "x"\nhost = "a"\n', 'rule[2].name: "x" is the name of rule[1], too'),
        ('[[rule]]\nrefuse = true\npool = "p"\n', "rule[1].pool: contradicts refuse"),
        ('[[rule]]\nrefuse = true\nbypass = false\n', "rule[1].bypass: contradicts refuse"),
        ('[[rule]]\nrefuse = true\nkey_sort_query = true\n', "rule[1].key_sort_query: contradicts refuse"),
        ('[[rule]]\nbypass = true\nscheduler = "rr"\n', "rule[1].scheduler: contradicts bypass"),
        ('[[rule]]\nbypass = true\nkey_host = "a"\n', "rule[1].key_host: has no use with bypass"),
        ('[[rule]]\nkey_host = "a"\nmethod = "GET"\n', "rule[1].method: cannot be a condition of a rule with key_host"),
        ('[[rule]]\nkey_strip_query = "a"\nheader = "Cookie"\n', "rule[1].header: cannot be a condition"),
        ('[[rule]]\nkey_sort_query = true\nclient = "10.0.0.0/8"\n', "rule[1].client: cannot be a condition"),
        ('[[rule]]\nkey_send = "url"\n', "rule[1].key_send: has no use without key_host"),
        ('[[rule]]\npath_prefix = "*/a"\n', 'rule[1].path_prefix: "*/a" begins no path'),
        ('[[rule]]\npath_prefix = ["/a/*"]\n', 'rule[1].path_prefix[1]: "/a/*" is a pattern'),
        (
            '[[affinity]]\nname = "g"\n[[rule]]\naffinity = "g"\npool = "p"\n[[rule]]\naffinity = "g"\n',
            "rule[2].pool: the whole farm is not where rule[1] sends the group g: pool p",
        ),
        (
            '[[affinity]]\nname = "g"\n[[rule]]\naffinity = "g"\npool = "p"\n'
            '[[tcp]]\nname = "t"\nlisten = "0.0.0.0:21"\naffinity = "g"\npool = "q"\n',
            "tcp[1].pool: pool q is not where rule[1] sends the group g: pool p",
        ),
    ],
)
def test_each_mistake_has_its_place(text: str, said: str):
    found = problems(POOLS + text)
    assert len(found) == 1, found
    assert said in found[0]
    assert found[0].startswith("c:")


def test_a_node_without_weight_in_the_farm_may_have_one_in_a_pool():
    nodes = '[[node]]\nname = "a"\nhost = "10.0.0.1"\nweight = 0\n[[node]]\nname = "b"\nhost = "10.0.0.2"\n'
    assert "weight 0" in problems(nodes + '[[pool]]\nname = "p"\nnodes = "a"\n')[0]
    assert problems(nodes + '[[pool]]\nname = "p"\nnodes = "a"\nweights = { a = 1 }\n') == []


def test_all_mistakes_are_told_at_once_beside_those_of_the_schema():
    found = problems(POOLS + '[[rule]]\npool = "x"\naffinity = "y"\nscheduler = "z"\nrefuse = true\n')
    assert len(found) == 6


@pytest.mark.parametrize("text", ["rule = 5\n", "[[rule]]\npool = 5\n", "[[pool]]\nname = 5\nnodes = [5]\nweights = 5\n"])
def test_values_of_a_wrong_kind_are_the_schemas(text: str):
    assert problems(text + NODES)


def doubts_of(text: str) -> list[str]:
    return [f"{dotted(path)}: {said}" for path, said, _ in doubts(parse(POOLS + text, "c"))]


USED = '[[rule]]\nhost = "p"\npool = "p"\n[[rule]]\nhost = "q"\npool = "q"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (USED + '[[affinity]]\nname = "g"\n', "affinity[1]: group g is used by no [[rule]] and no [[tcp]]"),
        (USED + '[[cookie]]\nname = "c"\n', "cookie[1]: cookie c is used by no [[rule]]"),
        (USED + '[[cookie]]\nname = "c"\nsame_site = "None"\n[[rule]]\nhost = "x"\ncookie = "c"\n',
         "cookie[1].same_site: is None, which browsers take only of cookies that are secure"),
        (USED + '[bypass]\nmode = "off"\n[[rule]]\nhost = "x"\nbypass = true\n', "rule[3].bypass: has no effect"),
        (USED + '[[node]]\nname = "d"\nhost = "10.0.0.9"\nstate = "down"\n[[pool]]\nname = "r"\nnodes = "d"\n'
         '[[rule]]\nhost = "r"\npool = "r"\n', "pool[3]: every node of pool r has the state down"),
        (USED + '[[rule]]\nhost = "x"\nkey_host = "y"\nkey_send = "url"\n', "rule[3].key_send: nodes are sent the URL as asked"),
        (USED + '[[rule]]\nhost = "x"\nquery = "*a*"\nkey_strip_query = "a"\npool = "p"\n', "rule[3].query: the key of"),
        (USED + '[[rule]]\nhost = "x"\nkey_host = "q"\n', "rule[3].key_host: q falls under rule[2], which sends it elsewhere"),
        (USED + '[[rule]]\nhost = "x"\nkey_host = "y"\n[[rule]]\nhost = "z"\nkey_host = "y"\npool = "p"\n',
         "rule[4].key_host: y falls under rule[3], which sends it elsewhere"),
        (USED + '[[rule]]\nhost = "p"\npath = "*.html"\n', "rule[3]: never decides: rule[1] takes all that it would"),
    ],
)  # fmt: skip
def test_what_is_probably_not_meant(text: str, said: str):
    found = doubts_of(text)
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.parametrize(
    "text",
    [
        USED,
        USED + '[[rule]]\nhost = "x"\nkey_host = "y"\n[[rule]]\nhost = "z"\nkey_host = "y"\n',
        USED + '[[rule]]\nhost = "x"\npath = "/a/*"\nkey_strip_query = "a"\npool = "p"\n',
        USED + '[[cookie]]\nname = "c"\nsame_site = "None"\nsecure = true\n[[rule]]\nhost = "x"\ncookie = "c"\n',
        USED + '[[tcp]]\nname = "t"\nlisten = "0.0.0.0:21"\ntls = "sni"\npools = { "a.b" = "p" }\n',
    ],
)
def test_usual_rules_raise_no_doubts(text: str):
    assert doubts_of(text) == []


def test_an_unused_pool_is_told():
    assert doubts_of("") == [f"pool[{i}]: pool {name} is used by no [[rule]] and no [[tcp]]" for i, name in ((1, "p"), (2, "q"))]


def test_warnings_have_the_line(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text(POOLS + USED + '[[rule]]\nhost = "p"\nrefuse = true\n')
    config, warnings = load_with_warnings(path)
    assert config.rule[2].refuse
    line = path.read_text().splitlines().index("refuse = true") - 1
    said = "never decides: rule[1] takes all that it would (put the narrower rule first)"
    assert warnings == [f"{path}:{line} rule[3]: {said}"]

from __future__ import annotations

import pytest

from cachelb.config import parse
from cachelb.errors import ConfigError

NODES = """
[[node]]
name = "a"
host = "10.0.0.2"
[[pool]]
name = "p"
nodes = ["a"]
[[affinity]]
name = "g"
"""


def problems(text: str) -> list[str]:
    """Of a configuration with one node, one pool and one group."""
    try:
        parse(NODES + text, "f")
    except ConfigError as exc:
        return [str(problem) for problem in exc.problems]
    return []


def service(*lines: str) -> str:
    return "\n".join(('[[tcp]]\nname = "svc"', *lines, ""))


def test_what_is_right_is_taken():
    text = service('listen = ["0.0.0.0:21", "0.0.0.0:50000-50099"]', 'pool = "p"', 'affinity = "g"')
    text += '[[tcp]]\nname = "web"\nlisten = "0.0.0.0:443"\ntls = "sni"\nscheduler = "host"\npools = {".b" = "p"}\nhello_s = 2'
    assert problems(text) == []
    assert len(parse(NODES + text, "f").tcp) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (service('listen = "0.0.0.0:21"', 'pool = "q"'), '.pool: there is no pool "q" (there are p)'),
        (service('listen = "0.0.0.0:21"', 'affinity = "q"'), '.affinity: there is no group "q" (there are g)'),
        (service('listen = "0.0.0.0:21"', 'tls = "sni"', 'pools = {x = "q"}'), '.pools.x: there is no pool "q"'),
        (service('listen = "0.0.0.0:21"', 'pools = {x = "p"}'), 'ask for are not read (add tls = "sni")'),
        (service('listen = "0.0.0.0:21"', 'scheduler = "host"'), 'is "host", but names that TLS clients ask for are not read'),
        (service('listen = "0.0.0.0:21"') * 2, '"svc" is the name of tcp[1], too'),
        (service('listen = "0.0.0.0:3128"'), "0.0.0.0:3128 overlaps with listen.http: that listens on 0.0.0.0:3128"),
        (service('listen = "127.0.0.1:3000-3200"'), "127.0.0.1:3000-3200 overlaps with listen.http"),
        (
            service('listen = ["0.0.0.0:50-60", "127.0.0.1:60"]'),
            ".listen[2]: 127.0.0.1:60 overlaps with tcp[1]: that listens on 0.0.0.0:50-60",
        ),
        (service('listen = "10.0.0.2:21"'), 'which is where node "a" would be asked'),
        (service('listen = "10.0.0.2:21"', "port = 21"), 'which is where node "a" would be asked'),
        (service('listen = "0.0.0.0:21"', 'scheduler = "url"'), 'scheduler: "url" is not one of'),
        (service("listen = []"), "the service must listen somewhere"),
        (service(), "listen: is missing"),
        (service('listen = "0.0.0.0:1-2000"'), "is not a range of 1 to 1024 ports"),
        (service('listen = "0.0.0.0:9-8"'), "is not a range"),
        ("[tcp]\nname = 'x'", "write [[tcp]], with two brackets"),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str):
    found = problems(text)
    assert any(problem in line for line in found), found
    assert all(line.startswith("f:") for line in found)


def test_families_do_not_overlap():
    assert problems(service('listen = ["0.0.0.0:21", "[::]:21"]')) == []


def test_a_farm_of_pools_alone_needs_no_weight():
    text = '[[node]]\nname = "a"\nhost = "10.0.0.2"\nweight = 0\n[[pool]]\nname = "p"\nnodes = ["a"]\n'
    with pytest.raises(ConfigError, match="every node has weight 0"):
        parse(text, "f")
    assert parse(text + "weights = {a = 1}\n", "f").pool[0].weights == {"a": 1}

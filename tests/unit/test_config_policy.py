"""Pools, rules, affinity groups, cookies and TCP services as they are written."""

from __future__ import annotations

import pytest

from cachelb.config import Config, parse
from cachelb.config_text import as_toml
from cachelb.errors import ConfigError

NODES = "".join(f'[[node]]\nname = "{name}"\nhost = "10.0.0.{i}"\n' for i, name in enumerate("abc", 1))
ALL = (
    NODES
    + """
[[pool]]
name = "images"
nodes = ["a", "b"]
weights = { b = 2.5 }

[[affinity]]
name = "shop"
netmask_v4 = 24
timeout_s = 600

[[cookie]]
name = "session"
cookie = "JSESSIONID"
mode = "prefix"

[[rule]]
name = "pictures"
host = ["img*.a.example", ".b.example"]
path = "*.png"
path_regex = '^/item/[0-9]+$'
method = ["GET", "HEAD"]
port = [80, "8000-8099"]
header = "Cookie: *x*"
client = "10.0.0.0/8"
pool = "images"
scheduler = "wlc"
affinity = "shop"
cookie = "session"

[[rule]]
host = "cdn1.example"
key_host = "cdn.example"
key_sort_query = true
key_strip_query = "utm_*"

[[tcp]]
name = "ftp"
listen = ["0.0.0.0:21", "0.0.0.0:50000-50099"]
pool = "images"
affinity = "shop"
"""
)


def test_all_of_it_is_read_and_written_back():
    config = parse(ALL, "c.toml")
    assert config.pool[0].weights == {"b": 2.5}
    assert config.rule[0].path == ("*.png",)
    assert config.rule[1].key_send == "key"
    assert config.tcp[0].listen == ("0.0.0.0:21", "0.0.0.0:50000-50099")
    assert parse(as_toml(config), "again") == config
    assert Config.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rule]]\npath_regex = "(?=a)"\n', "is not a regular expression of RE2"),
        ('[[rule]]\nmethod = "get"\n', "the case of methods matters"),
        ('[[rule]]\nhost = "http://a/"\n', "is not a host"),
        ('[[rule]]\nscheduler = "best"\n', "is not one of"),
        ('[[rule]]\npools = "x"\n', "did you mean pool?"),
        ('[rule]\npool = "x"\n', "[[rule]], with two brackets"),
        ('[[tcp]]\nname = "x"\n', "listen: is missing"),
        ('[[tcp]]\nname = "x"\nlisten = "0.0.0.0:99-98"\n', "is not a range"),
        ('[[tcp]]\nname = "x"\nlisten = "0.0.0.0:1-65535"\n', "is not a range of 1 to 1024 ports"),
        ('[[cookie]]\nname = "x"\ncookie = "a b"\n', "cannot be the name of a cookie"),
        ('[[cookie]]\nname = "x"\npath = "no"\n', "cannot be the path of a cookie"),
        ('[[affinity]]\nname = "x"\nnetmask_v4 = 33\n', "at most 32"),
        ('[[pools]]\nname = "x"\n', "did you mean [[pool]]?"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(text: str, said: str):
    with pytest.raises(ConfigError) as caught:
        parse(NODES + text, "c.toml")
    assert said in str(caught.value)

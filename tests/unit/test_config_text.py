"""Where keys stand in a TOML text, and how a configuration is printed."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.config import parse
from cachelb.config_text import Found, dotted, lines_of, place_all, summary, syntax_problem, unreadable, warnings

TEXT = '''# a comment = 1
a = 1
"quoted key" = """two
lines # no comment
"""
b.c = ["x]", 'y"', [1, {d = 2}], # [
  "last"]

[t] # t
e = 2026-11-01 10:00:00
[t.u.v]
f = -1.5e3
[[n]]
g = {h = 1, i.j = [
  2]}
[[ n ]]
g = 2
[[n.m]]
k = "\\"\\u0041"
[[n.m]]
'k' = \'\'\'x\'\'\'\'
"\\u0041" = true
'''


def test_every_key_has_its_line():
    assert lines_of(TEXT) == {
        ("a",): 2,
        ("quoted key",): 3,
        ("b",): 6,
        ("b", "c"): 6,
        ("b", "c", 0): 6,
        ("b", "c", 1): 6,
        ("b", "c", 2): 6,
        ("b", "c", 2, 0): 6,
        ("b", "c", 2, 1): 6,
        ("b", "c", 2, 1, "d"): 6,
        ("b", "c", 3): 7,
        ("t",): 9,
        ("t", "e"): 10,
        ("t", "u", "v"): 11,
        ("t", "u", "v", "f"): 12,
        ("n",): 13,
        ("n", 0): 13,
        ("n", 0, "g"): 14,
        ("n", 0, "g", "h"): 14,
        ("n", 0, "g", "i"): 14,
        ("n", 0, "g", "i", "j"): 14,
        ("n", 0, "g", "i", "j", 0): 15,
        ("n", 1): 16,
        ("n", 1, "g"): 17,
        ("n", 1, "m"): 18,
        ("n", 1, "m", 0): 18,
        ("n", 1, "m", 0, "k"): 19,
        ("n", 1, "m", 1): 20,
        ("n", 1, "m", 1, "k"): 21,
        ("n", 1, "m", 1, "A"): 22,
    }


def test_line_ends_of_windows_do_not_count_twice():
    assert lines_of(TEXT.replace("\n", "\r\n")) == lines_of(TEXT)


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [paths_of(item, (*path, key)) for key, item in items]
    return set().union(*inner) | ({path} if path else set())


PIECES = [
    *("[[a]]", "[a.b]", "[c]", "x = 1", 'y = "#\\""', "z = '''\n'''", 'z = """a\\\n""""'),
    *("w = [1, # c\n [2], {v = []}]"),
    *("'k k'.l = 1979-05-27T07:32:00Z", "[[a.d]]", " [ e . 'f' ] ", "", "# x"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("\n".join))
def test_each_value_that_the_reader_finds_has_a_line(text: str):
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = lines_of(text)
    # Tables that only a longer header names have no line of their own.
    headers = {path[:n] for path in lines for n in range(1, len(path))}
    assert paths_of(value) - headers <= lines.keys()
    assert set(lines) <= paths_of(value)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def test_paths_are_shown_as_people_count():
    assert dotted(("node", 1, "weight")) == "node[2].weight"
    assert dotted(("access", "allow", 0)) == "access.allow[1]"
    assert dotted(("a b", "\x1b")) == '"a b"."\\u001b"'
    assert dotted(()) == ""


def test_a_problem_without_a_line_of_its_own_stands_at_the_next_outer_one():
    lines = {("node",): 3, ("node", 0): 3}
    found = [Found(("node", 0, "host"), "is missing"), Found((), "first"), Found((), "first")]
    assert [str(problem) for problem in place_all(found, "f", lines)] == ["f: first", "f:3 node[1].host: is missing"]


def test_what_the_reader_says_is_put_after_its_place():
    problem = syntax_problem("f", "a\nb\n", ValueError("Invalid value (at line 2, column 1)"))
    assert (problem.place, problem.text) == ("f:2:1", "is not valid TOML: invalid value")
    assert "quotes" in problem.hint
    assert syntax_problem("f", "a\nb\n", ValueError("Invalid value (at end of document)")).place == "f:3"
    assert syntax_problem("f", "", ValueError("something new")).place == "f:1"


def test_a_read_error_is_a_sentence():
    assert str(unreadable("f", PermissionError(13, "x"))).startswith("f: this user may not read it")
    assert str(unreadable("f", OSError(5, "Input/output error"))) == "f: cannot be read: Input/output error"


NODE = '[[node]]\nname = "a"\nhost = "10.0.0.1"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[access]\npurge = ['0.0.0.0/0']\n", "access.purge has 0.0.0.0/0: the whole world may empty the caches"),
        ("[access]\nallow = []\n", "every client will be refused"),
        ("[access]\nallow = ['::/0']\n", "access.allow has ::/0: the whole world"),
        ("[bypass]\nallow_private = true\n", "bypass.allow_private: clients can reach"),
        ("[listen]\nadmin = '0.0.0.0:3180'\n", "listen.admin is 0.0.0.0:3180"),
        ("[timeouts]\nnode_keep_alive_s = 120\n", "node_keep_alive_s is 120"),
        ("[icp]\nmode = 'forward'\n[[node]]\nname = 'b'\nhost = '10.0.0.2'\nicp_port = 0\n", "but b speaks no ICP"),
        (
            "[listen]\nstore_log = '0.0.0.0:3131'\n[[node]]\nname = 'b'\nhost = '10.0.0.1'\nhttp_port = 3129\n",
            "b and a are both at 10.0.0.1: their store logs cannot be told apart; give them their own store_log",
        ),
    ],
)
def test_what_is_probably_not_meant_is_said(text: str, words: str):
    (warning,) = warnings(parse(text + NODE, "f"))
    assert words in warning


def test_a_farm_that_is_down_is_said():
    assert warnings(parse(NODE + "state = 'down'\n", "f")) == ["every node has the state down: the farm serves nothing"]


def test_a_usual_configuration_has_no_warnings():
    assert warnings(parse(NODE, "f")) == []


def test_the_summary_is_one_line():
    text = summary(parse(NODE, "f"))
    assert text == "1 node, 1 up; ring; bypass direct; listening on 0.0.0.0:3128"

from __future__ import annotations

import json

from cachelb.simulate.plan import Plan, Side, made_up_urls, plan
from cachelb.simulate.plan_report import as_dict, keys_made_up, keys_of_log, text
from cachelb.simulate.policies import Node

THREE = tuple(Node(f"cache{n}") for n in (1, 2, 3))


def a_plan(count: int = 1000, *, weighed: bool = True) -> Plan:
    before, after = Side("old.toml", "ring", THREE), Side("new.toml", "ring", (*THREE, Node("cache4")))
    return plan(before, after, made_up_urls(count), [2] * count if weighed else None, [10] * count if weighed else None)


def test_people_get_who_gives_what_to_whom():
    shown = text(a_plan(), "those of the log", ["a note"])
    assert "before: old.toml: ring, 3 nodes, 3 up" in shown
    assert "after:  new.toml: ring, 4 nodes, 4 up" in shown
    assert "URLs:   those of the log\na note\n" in shown
    rows = [line.split() for line in shown.splitlines() if "->" in line and "from" not in line]
    assert sorted(row[0] for row in rows) == ["cache1", "cache2", "cache3"]
    moved = next(line.split() for line in shown.splitlines() if line.startswith("all that moves"))
    assert moved[3] == moved[4] == moved[5]
    assert "by the weights 25.0% of the URLs have to move" in shown


def test_without_a_log_there_are_no_requests():
    shown = text(a_plan(weighed=False), keys_made_up(1000))
    assert "requests now" not in shown
    assert "1,000 made up, for no log was given" in shown
    assert "within 3.2%" in shown
    assert as_dict(a_plan(weighed=False), "")["moved"]["share_of_requests"] is None


def test_programs_get_plain_values():
    found = a_plan()
    values = json.loads(json.dumps(as_dict(found, "keys", ["note"])))
    assert values["total"] == {"urls": 1000, "requests": 2000, "sent": 10_000}
    assert {move["to"] for move in values["moves"]} == {"cache4"}
    assert sum(move["urls"] for move in values["moves"]) == values["moved"]["urls"] == found.moved.urls
    assert values["nodes"][3]["before"]["urls"] == 0
    assert values["nodes"][3]["after"]["share_of_urls"] == found.moved.urls / 1000
    assert (values["keys"], values["notes"], values["least"]) == ("keys", ["note"], 0.25)


def test_many_flows_are_added_up():
    many = tuple(Node(f"n{n}") for n in range(60))
    found = plan(Side("a", "ring", many), Side("b", "carp", many), made_up_urls(5000))
    shown = text(found, "")
    assert f"{len(found.moves) - 40} more" in shown
    assert "... and 20 more" in shown
    assert len(shown.splitlines()) < 100
    assert len(as_dict(found, "")["moves"]) == len(found.moves)


def test_a_plan_of_nothing_is_no_division_by_zero():
    side = Side("a", "ring", THREE)
    assert "0.00%" in text(plan(side, side, []), keys_of_log(["a"], plan(side, side, []).total))

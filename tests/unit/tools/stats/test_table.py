"""Columns, rows and their order."""

from cachelb.tools.stats.table import BY_NAME, COLUMNS, lay_out, order, row, state, titles
from cachelb.tools.stats.verdict import judge
from fakes_stats import farm, node


def test_the_state_fits_its_column_and_says_how_far_a_node_is():
    found = farm(node("a", share=0.4), node("b", state="drain", drain={"done": True}), node("c", state="drain", drain={}))
    assert [state(row) for row in found.nodes] == ["up 40%", "drained", "drain"]
    assert all(len(state(row)) <= BY_NAME["state"].width for row in found.nodes)


def test_what_matters_least_goes_first():
    nodes = farm().nodes
    gone = [{column.name for column in COLUMNS} - {c.name for c in lay_out(width, nodes).columns} for width in (80, 66, 58, 30)]
    assert gone[0] == set()
    assert gone[1] <= gone[2] <= gone[3]
    assert gone[2]
    assert not gone[3] & {"name", "state"}


def test_titles_stand_over_their_cells():
    nodes = farm().nodes
    layout = lay_out(80, nodes)
    assert titles(layout).index("open") + 4 == row(layout, nodes[0], "").index("    1 ", 60) + 5


def test_the_order_can_be_turned_and_what_is_unknown_comes_last():
    found = farm(node("a", rates={"p99_ms": None}), node("b", rates={"p99_ms": 5.0}), node("c", rates={"p99_ms": 9.0}))
    verdict = judge(found)
    assert [n.name for n in order(found.nodes, verdict, "p99")] == ["c", "b", "a"]
    assert [n.name for n in order(found.nodes, verdict, "p99", True)] == ["b", "c", "a"]
    assert [n.name for n in order(found.nodes, verdict, "name")] == ["a", "b", "c"]

"""How many findings of the same kind become one."""

from cachelb.tools.stats.finding import BAD, FEW, NOTE, Finding, grouped_findings
from cachelb.tools.stats.verdict import judge
from fakes_stats import farm, node


def test_a_few_are_listed_and_what_is_of_the_farm_stays():
    few = [Finding(BAD, "dead", f"{name} is dead", node=name) for name in "abc"][:FEW]
    whole = [Finding(NOTE, "hot", f"URL {i}") for i in range(2 * FEW)]
    assert grouped_findings([*few, *whole]) == [*few, *whole]
    assert grouped_findings([]) == []


def test_many_nodes_with_the_same_trouble_are_one_finding():
    verdict = judge(farm(node("a"), *(node(f"n{i}", state="dead") for i in range(37))))
    found = grouped_findings(verdict.troubles)
    assert len(found) == 1
    assert found[0].text.startswith("37 nodes are dead: n0, n1, n2 and 34 more")
    assert verdict.words() == "NOT WELL: 1 problem"
    assert (verdict.of_node("n5"), verdict.of_node("a")) == ("bad", "")

"""What programs read."""

import csv
import io
import json

from cachelb.tools.stats.records import CSV_COLUMNS, as_csv, as_json
from cachelb.tools.stats.verdict import judge
from fakes_stats import farm, node


def test_csv_has_the_farm_and_each_node_with_names_of_any_kind():
    found = farm(node('a,"b"\n'), node("b", state="dead"))
    rows = list(csv.DictReader(io.StringIO(as_csv(found, judge(found)))))
    assert [row["name"] for row in rows] == ["", 'a,"b"\n', "b"]
    assert [row["well"] for row in rows] == ["0", "1", "0"]
    assert rows[0]["requests_per_s"] == "300.0"
    assert rows[1]["requests_part"] == "0.5"
    assert tuple(rows[0]) == CSV_COLUMNS


def test_json_has_the_verdict_and_the_documents():
    found = farm(node("a"), node("b", state="dead"))
    read = json.loads(as_json(found, judge(found)))
    assert (read["well"], read["findings"][0]["node"], read["findings"][0]["level"]) == (False, "b", "bad")
    assert read["status"]["nodes"][1]["name"] == "b"

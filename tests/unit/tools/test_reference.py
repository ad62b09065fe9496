"""The committed reference is what the code says today, and has all of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from cachelb.tools import reference

from cachelb import config
from cachelb.counters import FARM, NODE, PEERS
from cachelb.errors import Reason

PAGE = Path(__file__).parents[3] / "docs" / "reference.md"
SOURCE = reference.schema()


def test_the_committed_page_is_up_to_date():
    how = "make it anew: .venv/bin/python -m cachelb.tools.reference > docs/reference.md"
    assert PAGE.read_text("utf-8") == reference.page(), how


def test_every_option_is_there_once():
    found = [(option.section, option.name) for option in reference.options(SOURCE)]
    wanted = {(section, key) for section, keys in config.FIELDS.items() if section for key in keys}
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_every_option_says_its_type_and_what_it_is_for():
    plain = {"http_port", "access_format", "level"}  # the name and the type say it all
    for option in reference.options(SOURCE):
        assert option.type
        assert option.meaning or option.name in plain, option


def test_defaults_are_those_in_force():
    found = {(option.section, option.name): option.default for option in reference.options(SOURCE)}
    assert found["timeouts", "connect_s"] == "3.0"
    assert found["listen", "http"] == '["0.0.0.0:3128"]'
    assert found["icp", "allow"] == ""
    assert (found["node", "name"], found["node", "weight"]) == ("required", "1.0")


def test_a_comment_above_and_one_behind_are_both_read():
    source = (
        "class AConfig:\n    '''Of a.'''\n\n"
        "    # above,\n    # in two lines\n    keys: Seconds = f(\n        1,\n    )  # behind\n"
        "    # not this one\n\n    save_s: bool = 1\n\nclass Config:\n    index: AConfig = AConfig()\n"
    )
    first, second = reference.options(source)
    assert (first.meaning, second.meaning) == ("above, in two lines; behind", "")
    assert (first.type, second.type) == ("seconds", "true, false")
    assert reference.sections(source) == {"index": "Of a."}


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("Annotated[int, Field(ge=1, le=1 << 20)]", "1 to 1,048,576"),
        ("Annotated[float, Field(gt=0, le=WEEK_S, allow_inf_nan=False)]", "0 to 604,800"),
        ('Literal["a", "b"]', '"a", "b"'),
        ("tuple[Network, ...] | None", "list of networks"),
        ("Annotated[str, BeforeValidator(check_path)]", "path"),
    ],
)
def test_types_in_words(annotation: str, words: str):
    assert reference.type_of(ast.parse(annotation, mode="eval").body) == words


@pytest.mark.parametrize("annotation", ["Unknown", "dict[str, int]", "1", "Annotated[str, BeforeValidator(check_moon)]"])
def test_a_type_without_a_word_is_an_error(annotation: str):
    with pytest.raises(KeyError):
        reference.type_of(ast.parse(annotation, mode="eval").body)


def test_every_counter_has_its_metric():
    names = {row.name for row in reference.metrics()}
    shown_otherwise = ("ended_", "bypassed_", "loop_lag_")
    for prefix, table in (("", FARM), ("", PEERS), ("node_", NODE)):
        for counter in table:
            if not (table is FARM and counter.name.startswith(shown_otherwise)):
                assert f"cachelb_{prefix}{counter.name}" + "_total" * (counter.kind == "counter") in names


def test_labels_and_kinds_are_read():
    rows = {row.name: row for row in reference.metrics()}
    assert rows["cachelb_exchanges_ended_total"][1:3] == ("counter", ("error", "reason"))
    assert rows["cachelb_node_duration_seconds"][1:3] == ("histogram", ("le", "node"))
    assert rows["cachelb_requests_total"].labels == ()


def test_every_reason_has_a_row():
    text = reference.page().partition("## Reasons")[2]
    assert [reason.label for reason in Reason if f"| `{reason.label}` | {reason.value.status} |" not in text] == []


def test_what_would_spoil_a_table_is_escaped():
    assert "Cookie: \\*session=\\*" in reference.page()

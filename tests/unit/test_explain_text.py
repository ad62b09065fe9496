"""The text of an explanation; most of it is in test_explain.py."""

from __future__ import annotations

from cachelb.explain_text import render
from cachelb.explained import Explanation


def test_names_and_sentences_stand_in_two_columns():
    facts = {"rule": "r", "rule_in": "rule", "scheduler": "rr"}
    found = Explanation("GET", "http://a/", "127.0.0.1", "hash", "get", "to n, its owner", **facts)
    assert render(found).splitlines() == [
        "request  GET http://a/",
        "client   127.0.0.1",
        "kind     hash: get",
        "rule     r of [[rule]]",
        "pool     the whole farm",
        "by       rr",
        "goes     to n, its owner",
    ]

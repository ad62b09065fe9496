from __future__ import annotations

import pytest
from netbed import Space

from cachelb.config import parse
from cachelb.hostnet import nft
from cachelb.hostnet.steps import HostError, Step
from cachelb.hostnet.wanted import RulesetEntry, ruleset

CONFIG = """
[intercept]
listen = ["127.0.0.1:3129", "[::1]:3129"]
ports = [80, 8080]
clients = ["0.0.0.0/0", "::/0"]
interfaces = ["veth0"]
skip = ["10.9.0.0/16", "10.9.1.0/24", "fd00::/8"]
[[node]]
name = "a"
host = "fd00::11"
"""
ENTRY = ruleset(parse(CONFIG, "test"), ("10.0.0.11",))


def test_the_table_is_made_replaced_and_removed(space: Space):
    before = space.run("nft", "list", "ruleset")
    assert nft.found() == (None, None)
    nft.check(ENTRY)
    assert nft.found() == (None, None)
    nft.do(Step(True, ENTRY))
    assert nft.found() == (RulesetEntry(ENTRY.digest), None)
    other = ruleset(parse(CONFIG.replace("8080", "8081"), "test"))
    nft.do(Step(True, other))
    assert nft.found() == (RulesetEntry(other.digest), None)
    assert "8080" not in space.run("nft", "list", "ruleset")
    nft.do(Step(False, other))
    nft.do(Step(False, other))  # there is none: no error
    assert space.run("nft", "list", "ruleset") == before


@pytest.mark.parametrize("text", ["table inet cachelb {}", 'table inet cachelb { comment "mine"\n }'])
def test_a_table_of_the_same_name_that_is_not_ours_is_told_apart(space: Space, text: str):
    space.run("nft", text)
    ours, foreign = nft.found()
    assert ours is None
    assert foreign is not None
    assert foreign.text == "table inet cachelb"


def test_a_table_that_the_kernel_would_not_take_is_refused_before_anything_is_changed(space: Space):
    bad = RulesetEntry("x", "table inet cachelb { chain c { nonsense } }\n")
    with pytest.raises(HostError, match=r"nft refuses the table inet cachelb: .*nonsense"):
        nft.check(bad)
    with pytest.raises(HostError, match="nft refuses the table inet cachelb"):
        nft.do(Step(True, bad))


def test_a_missing_command_and_a_missing_feature_are_sentences(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nft, "_PATH", "/nowhere")
    assert nft.found() == (None, None)
    with pytest.raises(HostError, match="the command nft is missing"):
        nft.check(ENTRY)
    said = "Error: Could not process rule: No such file or directory"
    assert "this kernel cannot intercept: it needs nft_tproxy" in nft.refusal(said)
    assert "CAP_NET_ADMIN is missing" in nft.refusal("Operation not permitted (you must be root)")

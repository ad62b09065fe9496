from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from cachelb.simulate.options import add_plan, add_simulate, size


@pytest.fixture
def simulate() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_simulate(parser)
    return parser


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("10GB", 10 << 30),
        ("10 gb", 10 << 30),
        ("10G", 10 << 30),
        ("10GiB", 10 << 30),
        ("1.5K", 1536),
        ("512", 512),
        ("2TB", 2 << 40),
    ],
)
def test_sizes_are_as_in_squid_conf(text: str, count: int):
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 PB", "1e9", "ten", "1..5K"])
def test_other_sizes_are_refused(text: str):
    with pytest.raises(argparse.ArgumentTypeError):
        size(text)


def test_what_is_not_said_has_a_default(simulate: argparse.ArgumentParser):
    options = simulate.parse_args(["--log", "a", "--log", "-", "--size", "1GB"])
    assert (options.log, options.nodes, options.size, options.fill, options.add_at) == (["a", "-"], 3, 1 << 30, 0.92, 0.5)
    assert (options.max_object, options.min_object, options.policy, options.add, options.no_add) == (
        4 << 20,
        0,
        None,
        None,
        False,
    )


def test_parts_may_be_percent(simulate: argparse.ArgumentParser):
    assert simulate.parse_args(["--log", "a", "--size", "1", "--add-at", "25%", "--sample", "0.1"]).add_at == 0.25


@pytest.mark.parametrize(
    "more",
    [
        ["--size"], ["--size", "1", "--nodes", "0"], ["--size", "1", "--policy", "sticky"], ["--size", "1", "--add-at", "0"],
        ["--size", "1", "--sample", "1.1"], ["--size", "1", "--nodes", "2", "-c", "x"], [],
    ],
)  # fmt: skip
def test_wrong_usage_is_refused(more: list[str], simulate: argparse.ArgumentParser):
    with pytest.raises(SystemExit):
        simulate.parse_args(["--log", "a", *more])


def test_a_plan_is_against_one_thing():
    parser = argparse.ArgumentParser()
    add_plan(parser)
    assert parser.parse_args(["--against", "old.toml"]).against == Path("old.toml")
    for wrong in ([], ["--against", "a", "--admin", "b"], ["--admin", "b", "--algorithm", "modulo"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)

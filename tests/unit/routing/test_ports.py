"""Port lists as the configuration writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.routing.ports import PortSet

SAFE = PortSet.parse([80, 443, "21", " 1025 - 65535 "])


@pytest.mark.parametrize("port", [80, 443, 21, 1025, 3128, 65535])
def test_ports_in_the_list_are_allowed(port: int) -> None:
    assert SAFE.allows(port)


@pytest.mark.parametrize("port", [-65456, -1, 0, 22, 81, 1024, 65536, 10**20])
def test_other_numbers_are_not(port: int) -> None:
    assert not SAFE.allows(port)


@given(st.lists(st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted), max_size=4), st.integers(0, 65536))
def test_a_port_is_allowed_if_a_range_has_it(ranges: list[list[int]], port: int) -> None:
    ports = PortSet.parse([f"{first}-{last}" for first, last in ranges])
    assert ports.allows(port) == any(first <= port <= last for first, last in ranges)


def test_an_empty_list_allows_nothing() -> None:
    assert not any(PortSet.parse([]).allows(port) for port in range(65536))


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        (0, "out of range"),
        (65536, "out of range"),
        ("1-65536", "out of range"),
        ("0-80", "out of range"),
        ("90-80", "'90-80' ends before it begins"),
        ("http", "neither a port nor a range"),
        ("", "neither a port nor a range"),
        ("-80", "neither a port nor a range"),
        ("80-", "neither a port nor a range"),
        ("1-2-3", "neither a port nor a range"),
        ("²", "neither a port nor a range"),
        ("9" * 5000, "neither a port nor a range"),
        (True, "neither a port nor a range"),
        (80.0, "neither a port nor a range"),
        (None, "neither a port nor a range"),
    ],
)
def test_what_is_no_port_is_refused_in_a_sentence(item: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PortSet.parse([80, item])  # type: ignore[list-item]


def test_a_set_is_written_as_it_was_read_and_compares_by_what_it_allows() -> None:
    assert str(SAFE) == "80, 443, 21, 1025-65535"
    assert PortSet.parse(str(SAFE).split(",")) == SAFE
    assert PortSet.parse([80, 81]) == PortSet.parse(["80-81"])
    assert hash(PortSet.parse([80, 81])) == hash(PortSet.parse(["80-81"]))
    assert PortSet.parse([80]) != PortSet.parse([81])
    assert PortSet.parse([80]) != "80"
    assert repr(PortSet.parse([80])) == "PortSet(80)"

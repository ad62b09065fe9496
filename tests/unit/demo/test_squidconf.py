"""The lines whose absence costs an afternoon; that Squid accepts the texts is shown in tests/squid."""

from __future__ import annotations

from pathlib import Path

from cachelb.demo.squidconf import child_settings, node_settings, parent_lines

DIRECTORY = Path("/d")


def node(**options: object) -> list[str]:
    return node_settings("cache1", "127.0.1.1", 3128, 3130, DIRECTORY, **options).splitlines()  # type: ignore[arg-type]


def test_the_object_size_stands_before_the_cache_dir_that_takes_it():
    lines = node(cache_mb=400)
    assert lines.index("maximum_object_size 100 MB") < lines.index("cache_dir ufs /d/cache 400 4 4")


def test_further_lines_come_before_the_access_rules():
    lines = node(extra=["http_access deny all"])
    assert lines.index("http_access deny all") < lines.index("http_access allow lo")


def test_the_first_http_port_is_the_plain_one():
    assert next(line for line in node() if line.startswith("http_port")) == "http_port 127.0.1.1:3128"


def test_a_child_asks_its_parent_and_never_goes_direct():
    lines = child_settings("child1", "127.0.2.1", 4000, DIRECTORY, parent_lines(("127.0.0.1", 3128))).splitlines()
    assert "cache_peer 127.0.0.1 parent 3128 0 name=front no-query no-digest no-netdb-exchange" in lines
    assert {"minimum_direct_rtt 0", "never_direct allow all"} <= set(lines)

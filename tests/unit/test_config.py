"""The configuration as a whole: what a text gives, and every problem with its place and hint."""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cachelb import config, config_text
from cachelb.config import DEFAULTS, FIELDS, Address, Config, load, parse
from cachelb.config_rules import freeze
from cachelb.errors import ConfigError

NODE = '[[node]]\nname = "cache1"\nhost = "10.0.0.11"\n'


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.toml")
    return [str(problem) for problem in caught.value.problems]


def test_one_node_is_a_configuration():
    config = parse(NODE, "c.toml")
    assert config.listen.http == (Address("0.0.0.0", 3128),)
    assert config.listen.admin == (Address("127.0.0.1", 3180),)
    assert config.listen.icp == ()
    assert config.node[0].name == "cache1"
    assert config.node[0].http_port == 3128
    assert config.relay.workers == "auto"


def test_the_design_s_example_is_understood():
    config = parse(
        """
[listen]
http  = ["0.0.0.0:3128", "[::]:3128"]
icp   = "0.0.0.0:3130"
admin = ""
[access]
allow = ["127.0.0.0/8", "2001:db8::/32"]
safe_ports = [80, 443, "1025-65535"]
[health]
interval_s = 4
[icp]
allow = ["10.0.0.0/8"]
[[node]]
name = "cache1"
host = "10.0.0.11"
weight = 2
[[node]]
name = "cache2"
host = "[2001:DB8::1]"
state = "drain"
""",
        "c.toml",
    )
    assert config.listen.http == (Address("0.0.0.0", 3128), Address("::", 3128))
    assert config.listen.admin == ()
    assert config.access.allow == (ip_network("127.0.0.0/8"), ip_network("2001:db8::/32"))
    assert config.access.safe_ports == (80, 443, "1025-65535")
    assert config.health.interval_s == 4.0
    assert isinstance(config.health.interval_s, float)
    assert config.icp.allow == (ip_network("10.0.0.0/8"),)
    assert config.node[0].weight == 2.0
    assert config.node[1].host == "2001:db8::1"


def test_by_default_the_world_may_not_use_it():
    allow = parse(NODE, "c.toml").access.allow
    inside = ("127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1")
    outside = ("8.8.8.8", "172.32.0.1", "2001:4860:4860::8888")
    assert all(any(ip_address(ip) in network for network in allow) for ip in inside)
    assert not any(ip_address(ip) in network for ip in outside for network in allow)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "c.toml: there is no [[node]]: the farm has no cache (add one with name and host)"),
        ("node = []", "c.toml: there is no [[node]]: the farm has no cache (add one with name and host)"),
        (NODE + 'wieght = 2\n', "c.toml:4 node[1].wieght: unknown key (did you mean weight?)"),
        (NODE + 'port = 2\n', "c.toml:4 node[1].port: unknown key (did you mean http_port or icp_port or probe_port?)"),
        ("[helth]\n" + NODE, "c.toml:1 helth: unknown key (did you mean health?)"),
        ("[nodes]\n" + NODE, "c.toml:1 nodes: unknown key (did you mean [[node]]?)"),
        ("workers = 2\n" + NODE, "c.toml:1 workers: unknown key (workers belongs into [relay])"),
        ("[hash]\nrise = 2\n" + NODE, "c.toml:2 hash.rise: unknown key (rise belongs into [health])"),
        ("[hash]\nzzz = 2\n" + NODE, "c.toml:2 hash.zzz: unknown key ([hash] has algorithm, key)"),
        ("[health]\ninterval = 2\n" + NODE, "c.toml:2 health.interval: unknown key (did you mean interval_s?)"),
        ("[[node]]\nhost = 'a'\n", 'c.toml:1 node[1].name: is missing (add name = "cache1")'),
        ("[[node]]\nname = 'a'\n", 'c.toml:1 node[1].host: is missing (add host = "10.0.0.11")'),
        ("[node]\nname = 'a'\n", "c.toml:1 node: should be a list of tables (write [[node]], with two brackets)"),
        ("node = [5]", "c.toml:1 node[1]: should be a table, not 5 (write [[node]] on a line of its own)"),
        ("hash = 'ring'\n" + NODE, 'c.toml:1 hash: should be a table, not "ring" (write [hash] on a line of its own)'),
        (NODE + "weight = -1\n", "c.toml:4 node[1].weight: is -1; it must be at least 0"),
        (NODE + "weight = 1e9\n", "c.toml:4 node[1].weight: is 1000000000.0; it must be at most 256"),
        (NODE + "weight = nan\n", "c.toml:4 node[1].weight: should be a number, not NaN"),
        (NODE + "weight = true\n", "c.toml:4 node[1].weight: should be a number, not true"),
        (NODE + "weight = '1'\n", 'c.toml:4 node[1].weight: should be a number, not "1"'),
        (NODE + "http_port = 0\n", "c.toml:4 node[1].http_port: is 0; it must be at least 1"),
        (NODE + "http_port = 80.0\n", "c.toml:4 node[1].http_port: should be a whole number, not 80.0"),
        (NODE + "icp_port = 65536\n", "c.toml:4 node[1].icp_port: is 65536; it must be at most 65535"),
        (NODE + "state = 'dead'\n", 'c.toml:4 node[1].state: "dead" is not one of "up", "drain", "down"'),
        (
            "[hash]\nalgorithm = 'rign'\n" + NODE,
            'c.toml:2 hash.algorithm: "rign" is not one of "ring", "carp" (did you mean ring?)',
        ),
        ("[health]\ninterval_s = 0\n" + NODE, "c.toml:2 health.interval_s: is 0; it must be above 0"),
        ("[health]\nrise = 0\n" + NODE, "c.toml:2 health.rise: is 0; it must be at least 1"),
        ("[timeouts]\nconnect_s = inf\n" + NODE, "c.toml:2 timeouts.connect_s: should be a number, not Infinity"),
        (
            "[relay]\nworkers = 0\n" + NODE,
            'c.toml:2 relay.workers: is 0; it must be 1 to 1024 (or "auto": one per core)',
        ),
        ("[relay]\nworkers = '4'\n" + NODE, 'c.toml:2 relay.workers: should be "auto" or a number, not "4"'),
        ("[bypass]\nlearn = 1\n" + NODE, "c.toml:2 bypass.learn: should be true or false, not 1"),
        ("[bypass]\nhosts = 'a'\n" + NODE, 'c.toml:2 bypass.hosts: should be a list, not "a" (write ["a"])'),
        ("[log]\naccess = 5\n" + NODE, "c.toml:2 log.access: should be a text in quotes, not 5"),
        (
            "[access]\nallow = [\n '10.0.0.0/8',\n '10.1.0.0/8']\n" + NODE,
            'c.toml:4 access.allow[2]: "10.1.0.0/8" has bits set beyond its prefix length (did you mean "10.0.0.0/8"?)',
        ),
        (
            "[access]\nsafe_ports = [0]\n" + NODE,
            "c.toml:2 access.safe_ports[1]: 0 is out of range; ports are 1 to 65535",
        ),
        (
            "[listen]\nhttp = 3128\n" + NODE,
            'c.toml:2 listen.http: 3128 is a port without an address (write "0.0.0.0:3128" for all IPv4 addresses)',
        ),
        (
            "[listen]\nhttp = ''\n" + NODE,
            'c.toml:2 listen.http: is empty: the director must listen somewhere (as "0.0.0.0:3128")',
        ),
    ],
)
def test_a_problem_has_its_place_and_a_hint(text: str, expected: str):
    assert problems(text) == [expected]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("host = 10.0.0.1", "c.toml:1:12"),
        ("a = 1\na = 2", "c.toml:2"),
        ("[a]\n[a]", "c.toml:2:3"),
        ("a = [1,\n", "c.toml:2"),
        ("a = '\n", "c.toml:2"),
        ("=", "c.toml:1:1"),
    ],
)
def test_a_syntax_error_has_line_and_column(text: str, place: str):
    (problem,) = problems(text)
    assert problem.startswith(f"{place}: is not valid TOML: ")


def test_all_problems_are_told_at_once_in_the_order_of_the_text():
    found = problems(
        "[hash]\nalgorithm = 'x'\n[listen]\nhttp = 'a'\nadmn = ''\n"
        "[[node]]\nname = 'a'\nhost = '10.0.0.1'\nweight = -1\n[[node]]\nname = 'a'\nhost = '10.0.0.1'\n"
    )
    assert [problem.split(": ")[0] for problem in found] == [
        "c.toml:2 hash.algorithm",
        "c.toml:4 listen.http",
        "c.toml:5 listen.admn",
        "c.toml:9 node[1].weight",
        "c.toml:11 node[2].name",
        "c.toml:12 node[2].host",
    ]


@pytest.mark.parametrize("text", ["a=" + "[" * 5000, "a=" + "[" * 400 + "]" * 400, "a=" + "9" * 5000, "a=1e999999"])
def test_absurd_texts_are_refused_in_words(text: str):
    assert all(problem.startswith("c.toml") for problem in problems(text))


def keys_and_values() -> st.SearchStrategy[str]:
    keys = sorted({key for section in FIELDS.values() for key in section} | {"x"})
    values = [
        *("0", "-1", "0.5", "7", "500", "nan", "2026-11-01", "true", "''", "'a:1'", "'10.0.0.0/8'", "'up'"),
        *("[]", "[1, 'x']", "['10.0.0.0/8']", "[[]]", "{}", "{a = 1}"),
    ]
    headers = [f"[{name}]" for name in FIELDS[""]] + [f"[{name}]" for name in ("node.x", "[node]", "x", "listen.http")]
    pairs = st.builds("{} = {}".format, st.sampled_from(keys), st.sampled_from(values))
    text = st.lists(pairs | st.sampled_from(headers), max_size=12).map("\n".join)
    # Single pairs under the right header and beside a node are often legal.
    legal = st.one_of(
        *(
            st.builds(f"[{name}]\n{{}} = {{}}\n{NODE}".format, st.sampled_from(FIELDS[name]), st.sampled_from(values))
            for name in FIELDS[""]
            if name != "node"
        )
    )
    return text | legal


@given(keys_and_values() | st.text(max_size=80))
def test_any_text_gives_a_configuration_or_problems_with_places(text: str):
    config: Config | None
    try:
        config = parse(text, "c.toml")
    except ConfigError as exc:
        config, found = None, exc.problems
    if config is None:
        assert found
        assert all(problem.place.startswith("c.toml") and "\n" not in str(problem) for problem in found)
    else:
        assert parse(config_text.as_toml(config), "again") == config


FULL = """
[listen]
http = ["127.0.0.1:3128", "[::1]:3128"]
store_log = "127.0.0.1:3131"
[access]
allow = ["10.0.0.0/8", "fc00::/7"]
[relay]
workers = 3
via = 'cache.example.net:3128'
[icp]
allow = ["10.0.0.0/8"]
[bypass]
hosts = [".example.com", "img*.a.com"]
headers = ["Cookie: *\\"quoted\\\\*"]
[log]
access = 'C:\\logs\\\u00e9t\u00e9 "x".log'
[[node]]
name = "cache1"
host = "10.0.0.11"
weight = 0.5
[[node]]
name = "cache2"
host = "cache2.example.net"
icp_port = 0
state = "down"
"""


@pytest.mark.parametrize("text", [NODE, FULL])
def test_what_is_printed_is_read_back_as_the_same(text: str):
    config = parse(text, "c.toml")
    assert parse(config_text.as_toml(config), "again") == config


@pytest.mark.parametrize("text", [NODE, FULL])
def test_workers_get_the_same_configuration_as_json(text: str):
    config = parse(text, "c.toml")
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert Config.model_validate(freeze(config.model_dump(mode="json"))) == config


def test_a_configuration_cannot_be_changed():
    config = parse(NODE, "c.toml")
    with pytest.raises(ValidationError):
        config.health.rise = 3  # type: ignore[misc]


def test_every_default_is_a_legal_value():
    sections = {name: values for name, values in DEFAULTS.items() if name != "node"}
    assert Config.model_validate(freeze(sections)) == Config()


def test_auto_is_one_worker_per_core():
    relay = parse(NODE, "c.toml").relay
    assert [relay.worker_count(cores) for cores in (0, 1, 8)] == [1, 1, 8]
    assert parse("[relay]\nworkers = 3\n" + NODE, "c.toml").relay.worker_count(8) == 3


def test_load_reads_a_file_and_names_this_host(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbf[listen]\r\nhttp = '127.0.0.1:8080'\r\n" + NODE.encode())
    config = load(path)
    assert config.relay.via.endswith(":8080")
    assert len(config.relay.via) > len(":8080")
    path.write_text("[relay]\nvia = 'me'\n" + NODE)
    assert load(path).relay.via == "me"


def said_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    return str(problem)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path):
    assert said_of(tmp_path / "none") == f"{tmp_path}/none: there is no such file (say which with -c FILE)"
    assert said_of(tmp_path) == f"{tmp_path}: is a directory (name the file in it)"
    assert "cannot be read" in said_of(Path("a\0b"))
    path = tmp_path / "latin"
    path.write_bytes(b"# ok\n# \xe4\n")
    assert said_of(path) == f"{path}:2: is not UTF-8: byte 0xe4"
    path.write_bytes(b"#" * ((16 << 20) + 1))
    assert "larger than 16 MiB" in said_of(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_sentence(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text(NODE)
    path.chmod(0)
    assert "this user may not read it" in said_of(path)


def test_more_than_workers_can_be_told_at_once_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "c.toml"
    path.write_text(NODE)
    monkeypatch.setattr(config, "SETTINGS_BYTES", 1_000)
    assert "MB with all defaults, as workers are told it" in said_of(path)

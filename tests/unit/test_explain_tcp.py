"""What `cachelb explain` says of connections to TCP services; that the relay does the same: tests/tcp."""

from __future__ import annotations

import pytest

from cachelb.config import Config, parse
from cachelb.explain import explain
from cachelb.explain_text import render
from cachelb.explained import BadQuestionError, Explanation

NODES = "".join(f'[[node]]\nname = "{name}"\nhost = "10.0.0.1{n}"\n' for n, name in enumerate("abc"))
SERVICES = """
[access]
allow = ["10.0.0.0/8", "fd00::/8"]
[[pool]]
name = "shop"
nodes = ["a", "b"]
[[pool]]
name = "mail"
nodes = "c"
[[affinity]]
name = "ftp"
[[tcp]]
name = "control"
listen = ["10.9.9.9:21", "10.9.9.9:50000-50010"]
affinity = "ftp"
[[tcp]]
name = "tls"
listen = "0.0.0.0:443"
port = 8443
tls = "session"
scheduler = "host"
pools = { "shop.example" = "shop", ".mail.example" = "mail" }
[[tcp]]
name = "any"
listen = ["[::]:25", "0.0.0.0:26-27"]
scheduler = "client"
pool = "shop"
"""


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(SERVICES + NODES, "c.toml")


def ask(config: Config, url: str, client: str = "10.1.1.1", **options) -> Explanation:
    return explain(config, url, client=client, **options)


def test_by_affinity_it_goes_where_the_clients_template_is(config: Config):
    found = ask(config, "tcp://10.9.9.9:21")
    assert (found.kind, found.rule, found.rule_in, found.affinity, found.scheduler) == ("tcp", "control", "tcp", "ftp", "wlc")
    assert (found.template, found.to, found.method) == ("", ("a", "b", "c"), "")
    assert found.goes == "to a node of the farm, whoever has the fewest requests under way for its weight"
    found = ask(config, "tcp://10.9.9.9:50010", followed=lambda *who: "b" if who == ("ftp", "10.1.1.1") else "")
    assert (found.rule, found.template, found.to) == ("control", "b", ("b",))  # of a range: no other node has that port open
    assert found.goes == "to b, where the client's template in the group ftp sends it"


def test_a_template_holds_while_its_node_may_be_asked(config: Config):
    def to_b(group: str, client: str) -> str:
        return "b"

    assert ask(config, "tcp://10.9.9.9:21", followed=to_b).to == ("b", "a", "c")
    drained = ask(config, "tcp://10.9.9.9:21", followed=to_b, states={"b": ("drain", 1.0)})
    assert (drained.template, drained.to) == ("b", ("b", "a", "c"))
    dead = ask(config, "tcp://10.9.9.9:21", followed=to_b, states={"b": ("dead", 0.0)})
    assert (dead.template, dead.to) == ("", ("a", "c"))
    assert dead.goes.startswith("to a node of the farm")


def test_a_client_is_the_same_however_its_address_is_written(config: Config):
    found = {ask(config, "tcp://10.9.9.9:26", client).hash for client in ("10.0.0.1", "::ffff:10.0.0.1", "::FFFF:10.0.0.1")}
    assert len(found) == 1
    assert ask(config, "tcp://[fd00::1]:25", "FD00:0::77").key == "fd00::77"


def test_of_two_services_on_a_port_a_tls_client_is_for_the_one_that_reads_names(config: Config):
    plain = '[[tcp]]\nname = "plain"\nlisten = "10.9.9.8:443"\n[[tcp]]\nname = "names"\nlisten = "10.9.9.9:443"\ntls = "sni"\n'
    both = parse(plain + NODES, "c.toml")
    for url, service in (("tls://a.example:443", "names"), ("tcp://10.9.9.8:443", "plain"), ("tcp://10.9.9.9:443", "names")):
        assert explain(both, url).rule == service


def test_by_the_name_that_a_tls_client_asks_for(config: Config):
    found = ask(config, "tls://Shop.Example:443")
    assert (found.pool, found.key, found.rule) == ("shop", "shop.example", "tls")
    assert found.to[0] == found.owner
    assert found.goes.startswith(f"to {found.owner}, its owner, by the name that it asks for; a TLS session that is known")
    assert {(node.name, node.port) for node in found.nodes} == {("a", 8443), ("b", 8443)}
    assert ask(config, "tls://imap.mail.example:443").to == ("c",)
    other = ask(config, "tls://other.example:443")
    assert (other.pool, len(other.nodes)) == ("", 3)
    assert ask(config, "tcp://10.9.9.9:443").key == "10.1.1.1"  # no name is known


def test_by_the_clients_address_and_on_a_port_of_a_range_one_node_alone(config: Config):
    found = ask(config, "tcp://[fd00::1]:25", "fd00::77")
    assert (found.key, found.hash != "", len(found.to)) == ("fd00::77", True, 2)
    assert len(ask(config, "tcp://10.9.9.9:26").to) == 1
    owners = {ask(config, "tcp://10.9.9.9:26", f"10.1.2.{number}").owner for number in range(40)}
    assert owners == {"a", "b"}
    dead = {"a": ("dead", 0.0)}
    returning = [ask(config, "tcp://10.9.9.9:26", f"10.1.2.{n}", states={"a": ("up", 0.01)}).goes for n in range(40)]
    assert "to b, because its owner a returns slowly (it takes 1% of its keys), by the client's address" in returning
    moved = [ask(config, "tcp://10.9.9.9:26", f"10.1.2.{number}", states=dead) for number in range(40)]
    assert {found.to for found in moved} == {("b",)}
    assert {found.goes for found in moved} == {
        "to b, its owner, by the client's address",
        "to b, because its owner a is dead, by the client's address",
    }


def test_where_nobody_is_in_service_or_the_client_may_not_come_it_is_closed(config: Config):
    dead = dict.fromkeys("abc", ("dead", 0.0))
    for url in ("tcp://10.9.9.9:21", "tcp://10.9.9.9:26"):
        found = ask(config, url, states=dead)
        assert (found.kind, found.reason, found.to) == ("refuse", "no_node", ())
        assert found.goes.startswith("nowhere: the connection is closed")
    found = ask(config, "tcp://10.9.9.9:21", "192.0.2.1")
    assert (found.kind, found.reason) == ("refuse", "access_denied")
    assert "192.0.2.1 is in no network of [access] allow" in found.why


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("tcp://10.9.9.9:22", "no TCP service listens on 10.9.9.9 port 22: 10.9.9.9:21 (control), "),
        ("tcp://10.9.9.8:21", "no TCP service listens on 10.9.9.8 port 21"),
        ("tls://shop.example:444", "no TCP service listens on port 444"),
        ("tcp://10.9.9.9", "is not a connection; write it like"),
        ("tls://a/b:443", "is not a connection"),
        ("tls://a b:443", "'a b' is not a host that a TLS client asks for"),
        ("tls://\udcff.example:443", "is not a host that a TLS client asks for"),
        ("tcp://www.example.org:21", "'www.example.org' is not an IP address"),
        ("tcp://\x1bc:21", "'\\x1bc' is not an IP address"),
        ("tcp://10.9.9.9:123456", "is not a connection"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(config: Config, url: str, said: str):
    with pytest.raises(BadQuestionError) as caught:
        ask(config, url)
    assert said in str(caught.value)


def test_without_services_there_is_nothing_to_ask_about():
    with pytest.raises(BadQuestionError, match=r"there is no \[\[tcp\]\]"):
        ask(parse(NODES, "c.toml"), "tcp://10.0.0.1:21")


def test_the_text_names_service_pool_scheduler_and_template(config: Config):
    lines = render(ask(config, "tcp://10.9.9.9:21", followed=lambda group, client: "b")).splitlines()
    assert lines[:7] == [
        "connects tcp://10.9.9.9:21",
        "client   10.1.1.1",
        "kind     tcp: service control",
        "rule     control of [[tcp]]",
        "pool     the whole farm",
        "by       wlc",
        "group    ftp: b",
    ]
    assert "10.0.0.11:21" in render(ask(config, "tcp://10.9.9.9:21"))
    assert "reason   access_denied" in render(ask(config, "tcp://10.9.9.9:21", "192.0.2.1"))

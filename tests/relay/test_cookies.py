"""Cookies keep browsers with their nodes: insert, prefix and rewrite, over real sockets, with curl, and beside HAProxy."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import pytest
from fakes import PATIENCE_S, get, ok

from cachelb.routing.tokens import Sealer, Token, is_token

rows = pytest.mark.parametrize
SECRET = "s" * 32
URL = "http://shop.test/page"
MODES = rows("mode", ["insert", "prefix", "rewrite"])


def site(make_farm, mode="insert", answer=None, more=(), **options):
    """A farm whose nodes are application servers that say who they are, and set SID where they have not got it."""
    name = "SRV" if mode == "insert" else "SID"
    cookie = {"name": "c", "mode": mode, "cookie": name, **options}
    farm = make_farm(rule=[{"scheduler": "rr", "cookie": ["c"]}], cookie=[cookie])
    for node in farm.nodes:

        def says(head, node=node):
            fields = [] if b"SID=" in head else [f"Set-Cookie: SID=of-{node.host}; Path=/"]
            return ok(node.host.encode(), *more, *fields)

        node.serve(answer or says)
    return farm


class Browser:
    """A client that keeps cookies, all of them for everything."""

    def __init__(self, farm):
        self.farm = farm
        self.client = farm.connect()
        self.jar: dict[str, str] = {}

    def ask(self, *fields, method="GET"):
        if self.jar:
            fields = (*fields, "Cookie: " + "; ".join(f"{name}={value}" for name, value in self.jar.items()))
        self.client.send(get(URL, *fields, method=method))
        answer = self.client.read_answer(method)
        for line in answer.head.split(b"\r\n"):
            key, _, value = line.decode().partition(": ")
            if key.lower() == "set-cookie":
                name, _, text = value.partition(";")[0].partition("=")
                self.jar[name] = text
        return answer

    def where(self):
        return self.ask().body.decode()


def heads(farm):
    return [head for node in farm.nodes for head in node.heads]


@MODES
def test_a_browser_stays_and_nodes_see_nothing_of_it(make_farm, mode):
    farm = site(make_farm, mode)
    browsers = [Browser(farm) for _ in range(6)]
    first = [browser.where() for browser in browsers]
    assert set(first) == {node.host for node in farm.nodes}
    for _ in range(3):
        assert [browser.where() for browser in browsers] == first
    seen = [line for head in heads(farm) for line in head.split(b"\r\n") if line.lower().startswith(b"cookie:")]
    assert set(seen) == {b"Cookie: SID=of-" + host.encode() for host in first}
    assert farm.counter("cookies_followed") == 18
    assert farm.counter("cookies_set") == 6


def test_inserted_with_its_attributes(make_farm):
    farm = site(make_farm, domain="shop.test", path="/", secure=True, same_site="Strict")
    answer = Browser(farm).ask()
    line = next(line for line in answer.head.split(b"\r\n") if line.startswith(b"Set-Cookie: SRV="))
    name, *attributes = line.split(b"; ")
    assert is_token(name.partition(b"SRV=")[2])
    assert attributes == [b"Domain=shop.test", b"Path=/", b"SameSite=Strict", b"Secure", b"HttpOnly"]
    assert answer.fields[b"cache-control"] == b"private"


def test_an_inserted_one_is_set_once(make_farm):
    farm = site(make_farm)
    browser = Browser(farm)
    browser.ask()
    answer = browser.ask()
    assert b"set-cookie" not in answer.fields
    assert b"cache-control" not in answer.fields


@rows("method, status", [("HEAD", "200 OK"), ("GET", "304 Not Modified"), ("GET", "404 Not Found"), ("POST", "200 OK")])
def test_every_kind_of_answer_sets_it(make_farm, method, status):
    farm = site(make_farm, answer=f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
    browser = Browser(farm)
    browser.ask(*(["Content-Length: 0"] if method == "POST" else []), method=method)
    assert is_token(browser.jar["SRV"].encode())


def test_long_answers_and_interim_ones(make_farm):
    body = b"x" * 300_000
    farm = site(make_farm, answer=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(body))
    browser = Browser(farm)
    browser.client.send(get(URL))
    assert b"set-cookie" not in browser.client.read_answer().fields
    answer = browser.client.read_answer()
    assert answer.body == body
    assert answer.fields[b"set-cookie"].startswith(b"SRV=")


def test_private_is_said_once(make_farm):
    farm = site(make_farm, answer=ok(b"", "Cache-Control: no-store"))
    assert Browser(farm).ask().fields[b"cache-control"] == b"no-store"


@MODES
@rows("state, why", [("dead", "dead"), ("down", "dead")])
def test_a_node_that_is_away_is_replaced(make_farm, mode, state, why):
    farm = site(make_farm, mode)
    browser = Browser(farm)
    first = browser.where()
    farm.declare([node.host for node in farm.nodes].index(first), state)
    browser.jar = browser.jar if mode == "insert" else {"SID": browser.jar["SID"], "x": "y"}
    second = browser.where()
    assert second != first
    assert farm.counter(f"cookies_{why}") == 1
    if mode == "insert":
        assert [browser.where() for _ in range(3)] == [second] * 3
        assert farm.counter("cookies_set") == 2


def test_a_node_that_cannot_be_reached_is_replaced(make_farm):
    farm = site(make_farm)
    browser = Browser(farm)
    first = browser.where()
    node = next(node for node in farm.nodes if node.host == first)
    farm.relay.call(lambda: [target.close_idle() for target in farm.engine.fleet.targets])
    node.refuse()
    second = browser.where()
    assert second != first
    assert browser.where() == second


def test_a_node_that_drains_keeps_its_browsers(make_farm):
    farm = site(make_farm)
    browser = Browser(farm)
    first = browser.where()
    farm.declare([node.host for node in farm.nodes].index(first), "drain")
    assert [browser.where() for _ in range(3)] == [first] * 3
    assert {Browser(farm).where() for _ in range(4)} == {node.host for node in farm.nodes} - {first}


def test_what_is_no_token_is_ignored_counted_and_replaced(make_farm):
    farm = site(make_farm)
    other = Sealer(b"another" * 5, "c")
    good = Browser(farm)
    good.where()
    bad = {
        "malformed": ["n1", "1", good.jar["SRV"][:-1], good.jar["SRV"] + "A", "x" * 20_000, "127.0.0.11:80"],
        "forged": [other.seal(Token(other.node_id("n1"), 1, 1)).decode(), "A" * 43],
    }
    for why, values in bad.items():
        for count, value in enumerate(values, 1):
            browser = Browser(farm)
            browser.jar = {"SRV": value}
            browser.where()
            assert is_token(browser.jar["SRV"].encode())
            assert farm.counter(f"cookies_{why}") == count
    assert not any(b"SRV" in head for head in heads(farm))


@MODES
def test_too_old(make_farm, mode):
    farm = site(make_farm, mode, max_life_s=100.0)
    browser = Browser(farm)
    browser.where()
    farm.engine.steering.cookies.clock = lambda: time.time() + 99
    browser.where()
    assert farm.counter("cookies_expired") == 0
    farm.engine.steering.cookies.clock = lambda: time.time() + 103
    browser.where()
    assert farm.counter("cookies_expired") == 1


def test_not_used_for_too_long_and_refreshed_by_use(make_farm):
    farm = site(make_farm, max_idle_s=100.0)
    browser = Browser(farm)
    first = browser.where()
    for after in (60, 120, 180):
        farm.engine.steering.cookies.clock = lambda after=after: time.time() + after
        assert browser.where() == first
    assert farm.counter("cookies_set") == 4
    farm.engine.steering.cookies.clock = lambda: time.time() + 300
    browser.where()
    assert farm.counter("cookies_expired") == 1


def test_a_hit_sets_no_session_of_somebody_else(make_farm):
    line = "Set-Cookie: SID=somebody; Path=/"
    farm = site(make_farm, "prefix", answer=ok(b"", line, "X-Cache: HIT from node"))
    assert Browser(farm).ask().fields[b"set-cookie"] == b"SID=somebody; Path=/"


@rows("mode", ["prefix", "rewrite"])
def test_the_applications_own_values_stay(make_farm, mode):
    farm = site(make_farm, mode, answer=ok(b"", "Set-Cookie: SID=; Max-Age=0", "Set-Cookie: other=1"))
    browser = Browser(farm)
    for value in ("a.b", "a~b", "plain", '"q"'):
        browser.jar = {"SID": value, "other": "x.y~z"}
        browser.ask()
    sent = [head.split(b"Cookie: ")[1].split(b"\r\n")[0] for head in heads(farm)]
    assert sorted(sent) == sorted(f"SID={value}; other=x.y~z".encode() for value in ("a.b", "a~b", "plain", '"q"'))
    assert farm.counter("cookies_set") == 0


def test_several_at_once(make_farm):
    cookies = [{"name": "own", "cookie": "SRV"}, {"name": "app", "cookie": "SID", "mode": "prefix"}]
    farm = make_farm(rule=[{"scheduler": "rr", "cookie": ["app", "own"]}], cookie=cookies)
    for node in farm.nodes:
        node.serve(ok(node.host.encode(), "Set-Cookie: SID=v; Path=/"))
    browser = Browser(farm)
    first = browser.where()
    assert set(browser.jar) == {"SRV", "SID"}
    for name in ("SRV", "SID"):
        half = Browser(farm)
        half.jar = {name: browser.jar[name]}
        assert half.where() == first
    assert not any(b"SRV" in head for head in heads(farm))


def test_a_reload_without_the_cookie_is_no_harm(make_farm):
    farm = site(make_farm)
    browser = Browser(farm)
    browser.where()
    farm.apply(rule=[], cookie=[])
    browser.where()
    assert farm.counter("cookies_followed") == 0


@MODES
def test_with_curls_jar(make_farm, mode, tmp_path):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    farm = site(make_farm, mode)
    jar = str(tmp_path / "jar")
    proxy = "http://{}:{}".format(*farm.address)
    command = ["curl", "-sS", "-m", "10", "-x", proxy, "-b", jar, "-c", jar, URL]
    said = {subprocess.run(command, capture_output=True, timeout=15, check=True).stdout for _ in range(5)}
    assert len(said) == 1


# -- beside HAProxy


HAPROXY = """
global
    log stderr local0
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend f
    bind {address}
    default_backend b
backend b
    balance roundrobin
    cookie {option}
{servers}
"""
OPTIONS = {"insert": "SRV insert indirect nocache", "prefix": "SID prefix", "rewrite": "SID rewrite"}


class Beside:
    """A real HAProxy in front of a farm's nodes."""

    def __init__(self, farm, mode, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = free.getsockname()
        servers = "\n".join(f"    server s{i} {node.address} cookie id{i}" for i, node in enumerate(farm.nodes))
        path = tmp_path / "haproxy.cfg"
        path.write_text(HAPROXY.format(address="{}:{}".format(*self.address), option=OPTIONS[mode], servers=servers))
        program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        self.process = subprocess.Popen([program, "-f", str(path), "-db"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        farm.wait_until(self._answers)

    def _answers(self):
        try:
            socket.create_connection(self.address, PATIENCE_S).close()
        except OSError:
            return False
        return True

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)


@MODES
def test_beside_haproxy(make_farm, mode, tmp_path):
    if not shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin"):
        pytest.skip("haproxy is not installed")
    farm = site(make_farm, mode, more=["Cache-Control: max-age=60"])  # HAProxy says private only of what may be stored
    haproxy = Beside(farm, mode, tmp_path)
    try:
        facts = []
        for address in (farm.address, haproxy.address):
            for node in farm.nodes:
                node.heads.clear()
            farm.address = address
            browser = Browser(farm)
            first = browser.ask()
            again = [browser.ask() for _ in range(3)]
            lines = [line.lower().split(b": ") for line in first.head.split(b"\r\n")]
            cookies = [line[1].split(b"=")[0] for line in lines if line[0] == b"set-cookie"]
            seen = [b"".join(line for line in head.split(b"\r\n") if line.lower().startswith(b"cookie:")) for head in heads(farm)]
            facts.append(
                {
                    "who": {answer.body == first.body for answer in again},
                    "sets": sorted(cookies),
                    "again": [b"set-cookie" in answer.fields for answer in again],
                    "private": [answer.fields.get(b"cache-control") for answer in (first, *again)],
                    "nodes see": sorted({line.lower().replace(first.body, b"NODE") for line in seen}),
                }
            )
        if mode == "rewrite":  # HAProxy puts its id in the place of the value, and its nodes see that
            facts = [fact | {"nodes see": None} for fact in facts]
        assert facts[0] == facts[1]
        assert facts[0]["who"] == {True}
    finally:
        haproxy.stop()

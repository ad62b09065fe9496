"""What the documentation tells to write into squid.conf and cachelb.toml is accepted, and does what it says.

Nodes, a director and downstream Squids run with the very lines of docs/peers.md and docs/guide.md; those of docs/rules.md are
only read.  Replaced are addresses,
ports and directories, and what is said of the machine that they would run on.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from cachelb.tools import icpq

from cachelb.config import parse
from cachelb.demo.director import Director, director_ports
from cachelb.demo.farm import Squid, find_squid, free_port, wait_until
from cachelb.demo.leash import Leash
from cachelb.demo.origin import OriginProcess
from cachelb.http.url import parse_absolute
from cachelb.routing.rules import compile_rules
from digest import Fetched, fetch_digest, parse_digest, store_key
from icp.client import IcpClient
from icp.packet import Opcode

ROOT = Path(__file__).parents[2]
NODE = '[[node]]\nname = "cache1"\nhost = "10.0.0.11"\n'
PEERS, GUIDE, README = ROOT / "docs" / "peers.md", ROOT / "docs" / "guide.md", ROOT / "README.md"
RULES = ROOT / "docs" / "rules.md"


class Block(NamedTuple):
    """A code block.  where: file and line, for the test's name.  heading: the last one above it."""

    where: str
    language: str
    heading: str
    text: str

    @property
    def is_squid_conf(self) -> bool:
        is_named = "squid.conf" in self.heading or re.search(r"^cache_peer ", self.text, re.MULTILINE) is not None
        return self.language == "squidconf" or (not self.language and is_named)


def blocks(path: Path) -> list[Block]:
    found: list[Block] = []
    heading, language, lines, first = "", None, [], 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fence = re.fullmatch(r"```(\w*)", line)
        if fence and language is None:
            language, lines, first = fence[1], [], number
        elif fence and language is not None:
            found.append(Block(f"{path.name}:{first}", language, heading, "".join(text + "\n" for text in lines)))
            language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line
    assert language is None, f"{path.name}:{first} does not end"
    return found


ALL = [*blocks(PEERS), *blocks(GUIDE), *blocks(README), *blocks(RULES)]
SQUID_CONF = [block for block in ALL if block.is_squid_conf]
TOML = [block for block in ALL if block.language == "toml"]


def squid_parse(text: str, directory: Path) -> str:
    """What squid says against `text`; empty: nothing."""
    conf = directory / "squid.conf"
    text = text.replace("/etc/squid/storeid.sed", "/bin/true")  # a program has to be there
    conf.write_text(f"http_port 127.0.2.250:3128\nvisible_hostname docs.test\npid_filename {directory}/pid\n{text}")
    squid = find_squid()
    assert squid is not None
    done = subprocess.run(
        [squid, "-k", "parse", "-n", "docs", "-f", conf], capture_output=True, text=True, timeout=30, check=False
    )
    complaints = [
        line for line in done.stderr.splitlines() if re.search(r"WARNING|ERROR|FATAL|UPGRADE|Bungled|unrecognized", line)
    ]
    return "\n".join(complaints) or (f"exit status {done.returncode}" if done.returncode else "")


def test_there_are_blocks_to_check():
    assert len([block for block in SQUID_CONF if block.where.startswith("peers")]) >= 7
    assert len([block for block in SQUID_CONF if block.where.startswith("guide")]) >= 3
    assert {block.where.partition(":")[0] for block in TOML} == {"peers.md", "guide.md", "README.md", "rules.md"}
    assert len([block for block in TOML if block.where.startswith("guide")]) >= 3


@pytest.mark.parametrize("block", SQUID_CONF, ids=lambda block: block.where)
def test_squid_accepts_what_is_shown(block: Block, tmp_path: Path):
    assert squid_parse(block.text, tmp_path) == ""


def test_squid_accepts_the_settings_named_in_tables(tmp_path: Path):
    lines = re.findall(r"`((?:never_direct|nonhierarchical_direct|minimum_icp_query_timeout) [^`]+)`", PEERS.read_text())
    assert len(lines) == 3
    assert squid_parse("".join(line + "\n" for line in lines), tmp_path) == ""


def test_both_pages_show_the_same_downstream_squid():
    assert block("Downstream Squids", "icp_port", GUIDE) == block("A downstream Squid", "icp_port")


def test_the_storeid_helper_that_is_shown_maps_as_the_rule_beside_it():
    page = RULES.read_text()
    script = "".join(line[4:] for line in page[page.index("    #!/bin/sed") :].splitlines(keepends=True)[:10])
    (text,) = [block.text for block in TOML if "key_host" in block.text]
    rules = compile_rules([rule.model_copy(update={"key_sort_query": False}) for rule in parse(text + NODE, "").rule])
    hosts = ["cdn.example.com", "cdn7.example.com:81", "cdn.a.example.com", "example.com", "cdn7.example.com.org"]
    paths = ["/a.js", "/?a=1", "/x?b=1&utm_s=2", "/?a=utm_&b", "/?utm_a=1&b=2", "/?utm_a", "/?x&utm_a=1&utm_b=&y&utm_c"]
    urls = [f"http://{host}{path}" for host in hosts for path in paths]
    asked = "".join(f"{url} 10.0.0.1/- - GET myip=- myport=3128\n" for url in urls)
    done = subprocess.run(["sed", "-uE", script], input=asked, capture_output=True, text=True, check=True, timeout=10)
    keys = [rules.keyed(parse_absolute(url.encode()))[0].key.decode() for url in urls]
    is_ruled = [bool(rules.of_url(parse_absolute(url.encode()))) for url in urls]
    expected = [f"OK store-id={key}" if ruled else "ERR" for key, ruled in zip(keys, is_ruled, strict=True)]
    assert done.stdout.splitlines() == expected
    assert sum(is_ruled) == 3 * len(paths)


def test_a_line_that_squid_does_not_know_is_noticed(tmp_path: Path):
    assert "cache_peers" in squid_parse("cache_peers director.example.org parent 3128 0\n", tmp_path)


@pytest.mark.parametrize("block", TOML, ids=lambda block: block.where)
def test_the_director_accepts_what_is_shown(block: Block):
    parse(block.text if "[[node]]" in block.text else block.text + NODE, block.where)


def test_every_setting_that_is_named_exists():
    named = set(re.findall(r"`\[(\w+)\] (\w+)", PEERS.read_text()))
    assert named
    fields = parse(NODE, "").model_dump()
    assert [(section, key) for section, key in named if key not in fields[section]] == []


# with real Squids, and a real director

HELD = 100
DIRECTOR = "127.0.0.1"  # the address that its connections come from, on loopback
STRANGER = "127.0.0.9"
# of a Squid that runs beside others on a machine without DNS
MACHINE = """\
http_port {host}:{port}
pid_filename {directory}/squid.pid
coredump_dir {directory}
cache_log {directory}/cache.log
netdb_filename none
logfile_rotate 0
cache_effective_user proxy
memory_cache_shared off
pinger_enable off
dns_nameservers 127.0.0.1
hosts_file none
shutdown_lifetime 0 seconds
udp_incoming_address {host}
"""


def block(heading: str, begins: str, path: Path = PEERS) -> str:
    """The text of the one block below that heading in which a line begins so."""
    (found,) = [each for each in blocks(path) if heading in each.heading and re.search(rf"^{begins}", each.text, re.MULTILINE)]
    return found.text


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """`text` with every change; each must be one."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


class Place:
    """Where Squids with documented lines run: each on an address of its own, with directories that are gone afterwards."""

    def __init__(self, leash: Leash) -> None:
        self.directory = Path(tempfile.gettempdir()) / f"cachelbdocs{secrets.token_hex(4)}"
        self.directory.mkdir()
        self.directory.chmod(0o755)
        leash.remove(self.directory)
        self._leash = leash
        self._squids: list[Squid] = []

    def start(self, name: str, host: str, icp_port: int, lines: Callable[[Path], str]) -> Squid:
        """Start one.  lines: what it has besides its own address, given its directory."""
        directory = self.directory / name
        directory.mkdir()
        port = free_port(host)
        text = MACHINE.format(host=host, port=port, directory=directory) + lines(directory)
        squid = Squid(name, host, port, icp_port, directory, text, self._leash)
        self._squids.append(squid)
        squid.start()
        return squid

    def stop(self) -> None:
        for squid in self._squids:
            squid.kill()


@pytest.fixture(scope="module")
def place(_squid_is_installed: None) -> Iterator[Place]:
    with Leash() as leash:
        made = Place(leash)
        yield made
        made.stop()
        shutil.rmtree(made.directory)


def node_lines(name: str, directory: Path, icp_port: int, store_log: int, more: str) -> str:
    """A node's, of both pages; those of docs/peers.md first, as it says.

    Tests send no requests from outside, and the origin is on loopback: to_localhost would refuse it.
    """
    peers = replaced(
        block("The nodes", "cache_store_log"),
        ("10.0.0.5:3131", f"{DIRECTOR}:{store_log}"),
        ("10.0.0.5", DIRECTOR),
        ("icp_port 3130", f"icp_port {icp_port}"),
        ("10 minutes", "10 seconds"),
    )
    guide = replaced(
        block("squid.conf of a node", "acl director", GUIDE),
        ("10.0.0.5", DIRECTOR),
        ("cache1.example.org", f"{name}.test"),
        ("/var/log/squid", str(directory)),
        ("http_access deny to_localhost", "#"),
    )
    return f"{peers}{guide}{more}"


class Farm(NamedTuple):
    """Two nodes with disks, one with memory alone, and the director in front of them."""

    nodes: list[Squid]
    director: Director
    icp_port: int
    htcp_port: int

    def holds(self, url: str) -> bool:
        """What the director says by ICP."""

        async def ask() -> bool:
            async with IcpClient() as client:
                answer = await client.query((DIRECTOR, self.icp_port), url.encode(), 1.0)
            return answer is not None and answer.reply.opcode is Opcode.HIT

        return asyncio.run(ask())

    def digest_has(self, urls: Sequence[str]) -> int:
        return digest_has(self.director.http, urls)


def digest_has(address: tuple[str, int], urls: Sequence[str]) -> int:
    """How many of `urls` are in the digest of the cache at `address`; -1: it has none yet."""
    answer = asyncio.run(fetch_digest(*address))
    if not isinstance(answer, Fetched):
        return -1
    mask = parse_digest(answer.body).mask
    return sum(mask.contains(store_key(url.encode())) for url in urls)


@pytest.fixture(scope="module")
def farm(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    tables, nodes = "", []
    for number, kind in enumerate(("disk", "disk", "memory"), 1):
        name, host = f"cache{number}", f"127.0.1.{200 + number}"
        icp_port, store_log = free_port(host, socket.SOCK_DGRAM), free_port(DIRECTOR, socket.SOCK_DGRAM)

        def lines(directory: Path, name: str = name, icp: int = icp_port, log: int = store_log, kind: str = kind) -> str:
            cache = f"cache_dir ufs {directory}/cache 100 4 4\n"
            if kind == "memory":
                memory = block("The nodes", "cache_dir ufs")
                cache = replaced(memory, ("/var/spool/squid", f"{directory}/cache"), ("10 minutes", "10 seconds"))
            return node_lines(name, directory, icp, log, cache)

        node = place.start(name, host, icp_port, lines)
        nodes.append(node)
        tables += f'[[node]]\nname = "{name}"\nhost = "{host}"\nhttp_port = {node.http_port}\nicp_port = {icp_port}\n'
        tables += f'store_log = "{DIRECTOR}:{store_log}"\n'
    http_place, admin = director_ports()
    icp_port, htcp_port, store_log = (free_port(DIRECTOR, socket.SOCK_DGRAM) for _ in range(3))
    config = replaced(
        block("The director", r"\[listen\]"),
        ("0.0.0.0:3128", f"{http_place[0]}:{http_place[1]}"),
        ("0.0.0.0:3130", f"{DIRECTOR}:{icp_port}"),
        ("0.0.0.0:4827", f"{DIRECTOR}:{htcp_port}"),
        ("10.0.0.5:3131", f"{DIRECTOR}:{store_log}"),
        ("[listen]\n", f'[listen]\nadmin = "{admin[0]}:{admin[1]}"\n'),
        ('"10.0.0.7/32"', '"127.0.0.1/32", "127.0.2.0/24"'),
        ("10.0.0.0/8", "127.0.0.0/8"),
        ("[digest]\n", "[digest]\nrebuild_s = 2.0\n"),
        ("/var/lib/cachelb", str(tmp_path_factory.mktemp("state"))),
    )
    config += f"[bypass]\nallow_private = true\n[relay]\nworkers = 1\n{tables}"
    with Leash() as leash:
        director = Director(config, tmp_path_factory.mktemp("director"), leash, http=http_place, admin=admin)
        director.start()
        yield Farm(nodes, director, icp_port, htcp_port)
        assert director.stop() == 0, director.log_tail()


def request(address: tuple[str, int], method: str, url: str, source: str = "") -> tuple[int, str]:
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=30, source_address=(source, 0) if source else None)
    try:
        connection.request(method, url)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("latin-1")
    finally:
        connection.close()


def fetched(address: tuple[str, int], origin: OriginProcess, word: str, count: int = HELD) -> list[str]:
    """GET as many objects with `word` in their names; their URLs."""
    urls = [f"{origin.base}/static/{word}{number}" for number in range(count)]
    assert {request(address, "GET", url)[0] for url in urls} == {200}
    return urls


def ways(child: Squid, urls: Sequence[str]) -> Counter[str]:
    """The words of its access.log for these URLs."""

    def words() -> list[str]:
        return [entry.hierarchy.partition("/")[0] for entry in child.access_log() if entry.url in urls]

    assert wait_until(lambda: len(words()) == len(urls), 10), child.log_tail()
    return Counter(words())


def child_of(place: Place, farm: Farm, host: str, lines: str) -> Squid:
    """A downstream Squid, once it has found its peer, and the peer's digest if it wants that."""
    lines = lines.replace("director.example.org", farm.director.http[0]).replace(" 3128 ", f" {farm.director.http[1]} ")
    lines = lines.replace(" 3130 ", f" {farm.icp_port} ").replace(" 4827 ", f" {farm.htcp_port} ")
    for kind in ("icp", "htcp"):
        lines = re.sub(rf"^{kind}_port .*", f"{kind}_port {free_port(host, socket.SOCK_DGRAM)}", lines, flags=re.MULTILINE)

    def settings(directory: Path) -> str:
        return (
            f"visible_hostname child.test\naccess_log stdio:{directory}/access.log\nstrip_query_terms off\n"
            f"acl lo src 127.0.0.0/8\nacl purge method PURGE\nhttp_access allow lo\nserver_persistent_connections off\n"
            f"minimum_icp_query_timeout 200\n{lines}"  # 5 ms by default: the machine is busy with other tests
        )

    child = place.start(f"child{host.rpartition('.')[2]}", host, 0, settings)
    assert wait_until(lambda: "Status     : Up" in child.manager("server_list"), 15), child.log_tail()
    if "no-digest" not in lines:
        request((child.host, child.http_port), "GET", f"http://{DIRECTOR}:9/")  # makes it fetch the digest
        assert wait_until(lambda: "last request result: success" in child.manager("digest_stats"), 15), child.log_tail()
    return child


DIGEST_ONLY = "cache_peer .* parent 3128 0 no-query"


@pytest.mark.parametrize(
    ("number", "begins", "more", "held", "absent"),
    [
        (1, "icp_port", "", {"CD_PARENT_HIT", "PARENT_HIT"}, "FIRST_PARENT_MISS"),
        (2, DIGEST_ONLY, "", {"CD_PARENT_HIT"}, "FIRSTUP_PARENT"),
        (3, "cache_peer .* no-digest no-netdb", "", {"PARENT_HIT"}, "FIRST_PARENT_MISS"),
        (4, "cache_peer .* sibling", "", {"CD_SIBLING_HIT", "SIBLING_HIT"}, "HIER_DIRECT"),
        # of the table below the blocks
        (5, DIGEST_ONLY, "never_direct allow all", {"CD_PARENT_HIT"}, "FIRSTUP_PARENT"),
        (6, DIGEST_ONLY, "prefer_direct on", {"CD_PARENT_HIT"}, "HIER_DIRECT"),
    ],
)
def test_a_downstream_squid_uses_the_farm_as_it_says(
    place: Place, farm: Farm, origin: OriginProcess, number: int, begins: str, more: str, held: set[str], absent: str
):
    assert f"`{more}`" in PEERS.read_text() or not more
    urls = fetched(farm.director.http, origin, f"peer{number}held")
    assert wait_until(lambda: farm.digest_has(urls) == HELD, 20, step_s=0.2)
    both = block("A downstream Squid", "icp_port")
    lines = re.sub(r"^cache_peer .*\n", block("A downstream Squid", begins), both, flags=re.MULTILINE) if number > 1 else both
    if "no-query" in lines:
        lines = replaced(lines, ("icp_port 3130\n", ""))
    lines += f"{more}\n"
    child = child_of(place, farm, f"127.0.2.{200 + number}", lines)
    way = (child.host, child.http_port)
    fetched(way, origin, f"peer{number}held")
    assert set(ways(child, urls)) <= held
    others = ways(child, fetched(way, origin, f"peer{number}absent"))
    assert others[absent] >= 0.9 * HELD, others  # the digest's false positives are the rest
    assert not [word for word in others if word.startswith("TIMEOUT")]


@pytest.mark.parametrize(("number", "more", "way"), [(7, "", "HIER_DIRECT"), (8, "nonhierarchical_direct off", "FIRSTUP_PARENT")])
def test_what_no_cache_could_store_goes_where_it_says(
    place: Place, farm: Farm, origin: OriginProcess, number: int, more: str, way: str
):
    assert f"`{more}`" in PEERS.read_text() or not more
    child = child_of(place, farm, f"127.0.2.{200 + number}", f"{block('A downstream Squid', 'icp_port')}{more}\n")
    url = f"{origin.base}/static/posted{number}"
    request((child.host, child.http_port), "POST", url)
    assert ways(child, [url]) == {way: 1}


def test_a_squid_without_an_icp_port_uses_its_parent_unasked(place: Place, farm: Farm, origin: OriginProcess):
    lines = replaced(block("A downstream Squid", "icp_port"), ("icp_port 3130\n", ""), ("no-netdb", "no-digest no-netdb"))
    child = child_of(place, farm, "127.0.2.209", lines)
    urls = fetched((child.host, child.http_port), origin, "unasked", 5)
    assert ways(child, urls) == {"FIRSTUP_PARENT": 5}
    assert "ICP is disabled! Cannot send ICP request to peer" in PEERS.read_text()
    assert "ICP is disabled! Cannot send ICP request to peer" in (child.directory / "cache.log").read_text("latin-1")


def test_a_node_with_memory_alone_has_a_digest(farm: Farm, origin: OriginProcess):
    node = farm.nodes[2]
    urls = fetched((node.host, node.http_port), origin, "memory")
    assert wait_until(lambda: digest_has((node.host, node.http_port), urls) == HELD, 25, step_s=0.5)


def test_a_node_takes_icp_and_purges_from_the_director_only(farm: Farm, origin: OriginProcess):
    node = farm.nodes[0]
    (url,) = fetched((node.host, node.http_port), origin, "nodepurge", 1)
    assert node.holds(url)
    assert icpq.main([f"{node.host}:{node.icp_port}", url, "--source", STRANGER]) == icpq.NOT_ALL
    assert request((node.host, node.http_port), "PURGE", url, STRANGER)[0] == 403
    assert request((node.host, node.http_port), "PURGE", url)[0] == 200
    assert not node.holds(url)


def test_a_purge_says_who_had_it_and_the_director_knows_at_once(farm: Farm, origin: OriginProcess):
    (url,) = fetched(farm.director.http, origin, "purged", 1)
    assert wait_until(lambda: farm.holds(url), 10)
    status, text = request(farm.director.http, "PURGE", url)
    assert (status, "1 of them had it" in text) == (200, True), text
    assert not farm.holds(url)
    assert not any(node.holds(url) for node in farm.nodes)
    assert request(farm.director.http, "PURGE", url)[0] == 404
    assert request(farm.director.http, "PURGE", url, STRANGER)[0] == 403


def test_a_downstream_squid_passes_its_purges_on(place: Place, farm: Farm, origin: OriginProcess):
    lines = block("Purging", "htcp_port")
    child = child_of(place, farm, "127.0.2.210", f"{lines}minimum_direct_rtt 0\nminimum_direct_hops 0\n")
    (url,) = fetched(farm.director.http, origin, "passedon", 1)
    fetched((child.host, child.http_port), origin, "passedon", 1)
    assert wait_until(lambda: farm.holds(url), 10)
    assert request((child.host, child.http_port), "PURGE", url)[0] == 200
    assert wait_until(lambda: not farm.holds(url), 5)
    assert wait_until(lambda: not any(node.holds(url) for node in farm.nodes), 5)


def test_a_url_is_cleared_by_hand(farm: Farm, origin: OriginProcess):
    (url,) = fetched(farm.director.http, origin, "byhand", 1)
    assert wait_until(lambda: farm.holds(url), 10)
    where = f"{DIRECTOR}:{farm.htcp_port}"
    assert icpq.main([where, url, "--htcp"]) == icpq.ALL_HIT
    assert icpq.main([where, url, "--clear"]) == icpq.ALL_HIT
    assert icpq.main([where, url, "--clear"]) == icpq.NOT_ALL
    assert not farm.holds(url)

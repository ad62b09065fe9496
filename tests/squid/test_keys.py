"""Key rules in front of real Squids: what the nodes store under is what ICP, purges and misrouting go by.

Sent the key, nodes store under it; sent the URL as asked, they need a StoreID helper that maps it likewise.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fakes import Peer, get
from load import Load

from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm, free_port, wait_until
from cachelb.demo.origin import OriginProcess
from cachelb.demo.squid import is_icp_hit
from icp.client import HtcpClient
from icp.htcp import CLR_GONE, TST_HIT

COUNT = 40
RULE = """
[[rule]]
name = "mirrors"
host = "127.0.0.1?"
path_prefix = "/static/"
key_host = "127.0.0.10"
key_strip_query = "utm_*"
pool = "two"
key_send = "{send}"

[[pool]]
name = "two"
nodes = ["cache1", "cache3"]
"""
# The same mapping as the rule's, in Squid's protocol: a URL and more on each line, an answer for each.
HELPER = r"""#!/bin/sed -uEf
s/[?&]utm_[^& ]*//g
s#^http://127\.0\.0\.1[0-9](:[0-9]+/static/[^ ]*).*#OK store-id=http://127.0.0.10\1#
t
s/.*/ERR/
"""


@pytest.fixture
def mirrors() -> Iterator[list[OriginProcess]]:
    """The same origin at three addresses, on one port."""
    with ExitStack() as stack:
        first = stack.enter_context(OriginProcess("127.0.0.10"))
        yield [first, *(stack.enter_context(OriginProcess(f"127.0.0.1{n}", first.port)) for n in (1, 2))]


@pytest.fixture
def helper() -> Iterator[list[str]]:
    """Lines of squid.conf for a StoreID helper."""
    directory = Path(tempfile.mkdtemp())  # the user proxy has to get there
    directory.chmod(0o755)
    program = directory / "storeid"
    program.write_text(HELPER)
    program.chmod(0o755)
    yield [f"store_id_program {program}", "store_id_children 4 startup=1 idle=1 concurrency=0"]
    shutil.rmtree(directory)


def hits(director: Director, origin: OriginProcess, paths: list[str]) -> dict[str, str]:
    """GET each path through the director; for what was a hit, the node that had it."""
    with Load(director.http, origin, paths, clients=4) as load:
        load.join()
    assert load.problems == []
    return {outcome.path: outcome.node for outcome in load.outcomes if outcome.hit}


async def htcp_hits(place: tuple[str, int], urls: list[str]) -> list[str]:
    """Those of the URLs that the farm has, as HTCP TST says."""
    async with HtcpClient() as client:
        answers = [await client.test(place, url.encode(), 5.0) for url in urls]
    assert None not in answers
    return [url for url, answer in zip(urls, answers, strict=True) if answer and answer.reply.response == TST_HIT]


async def htcp_clear(place: tuple[str, int], url: str) -> int | None:
    async with HtcpClient() as client:
        return await client.clear(place, url.encode(), 5.0)


@pytest.mark.parametrize("mode", ["index", "forward"])
@pytest.mark.parametrize("send", ["key", "url"])
def test_mirrors_are_one_to_clients_and_peers(
    send: str,
    mode: str,
    own_farm: Callable[..., SquidFarm],
    start_director: Callable[..., Director],
    mirrors: list[OriginProcess],
    helper: list[str],
    unique: str,
):
    farm = own_farm(3, store_logs=True, extra=helper if send == "url" else ())
    port, htcp = (free_port("127.0.0.1", socket.SOCK_DGRAM) for _ in range(2))
    more = f'[icp]\nmode = "{mode}"\n\n[access]\npurge = ["127.0.0.0/8"]\n{RULE.format(send=send)}'
    director = start_director(farm, more=more, listen=f'icp = "127.0.0.1:{port}"\nhtcp = "127.0.0.1:{htcp}"')
    paths = [f"/static/{unique}{number}?size=300" for number in range(COUNT)]
    keys = [mirrors[0].base + path for path in paths]

    assert hits(director, mirrors[1], [f"{path}&utm_source=mail" for path in paths]) == {}
    found = hits(director, mirrors[2], [f"{path}&utm_id=7" for path in paths])
    assert len(found) == COUNT
    assert set(found.values()) == {"cache1", "cache3"}
    assert set(hits(director, mirrors[0], paths).values()) == {"cache1", "cache3"}
    fetched = [target for mirror in mirrors for target in mirror.counts().elements() if f"/static/{unique}" in target]
    assert len(fetched) == COUNT

    # The farm is one cache to its peers, by whatever name they ask.
    variants = [mirror.base + path + more for mirror in mirrors for path in paths for more in ("", "&utm_x=1")]
    others = [f"{mirrors[1].base}/static/{unique}other", f"{mirrors[1].base}{paths[0]}&x=1"]
    place = ("127.0.0.1", port)
    assert wait_until(lambda: all(is_icp_hit(place, key) for key in keys), 10)
    assert [url for url in variants if not is_icp_hit(place, url)] == []
    assert [url for url in others if is_icp_hit(place, url)] == []
    assert asyncio.run(htcp_hits(("127.0.0.1", htcp), [*variants, *others])) == variants
    for key in keys:
        (holder,) = farm.holders(key)  # nodes store under the key
        answer = json.loads(director.admin_get(f"/api/v1/explain?{urllib.parse.urlencode({'url': key})}"))
        assert (answer["owner"], answer["rule"], answer["holders"]) == (holder, "mirrors", [holder])
    assert director.status()["onecache"]["counters"]["misrouted"] == 0

    # A purge by any name is one of all.
    client = Peer(socket.create_connection(director.http))
    client.send(get(f"{mirrors[2].base}{paths[0]}&utm_y=2", method="PURGE"))
    assert client.read_answer().status == 200
    client.close()
    assert farm.holders(keys[0]) == []
    assert [url for url in variants if f"{unique}0?" in url and is_icp_hit(place, url)] == []
    assert hits(director, mirrors[1], paths[:1]) == {}
    assert len(hits(director, mirrors[1], paths[1:])) == COUNT - 1

    # So is an HTCP CLR.
    assert asyncio.run(htcp_clear(("127.0.0.1", htcp), f"{mirrors[1].base}{paths[1]}&utm_z=3")) == CLR_GONE
    assert farm.holders(keys[1]) == []
    assert asyncio.run(htcp_hits(("127.0.0.1", htcp), [url for url in variants if f"{unique}1?" in url])) == []

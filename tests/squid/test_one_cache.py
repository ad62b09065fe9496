"""The farm looks like one cache: every URL is fetched once, kept by one Squid, and a hit for whoever asks next.

The clients are keep-alive connections of our own, curl, a downstream Squid and a browser.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fakes import Peer, chunk, get, post
from load import Load, expected_body, owners, static_paths

from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess
from cachelb.demo.squid import AccessEntry

LEAST_HITS = 0.89  # of ten requests for each URL the first cannot hit; two clients may be first at the same time
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def logged(farm: SquidFarm, base: str, paths: list[str], count: int) -> list[AccessEntry]:
    """The Squids' own lines about GETs of `paths`, once there are `count` of them."""
    urls = {base + path for path in paths}

    def entries() -> list[AccessEntry]:
        return [e for node in farm.nodes for e in node.access_log() if e.method == "GET" and e.url in urls]

    assert wait_until(lambda: len(entries()) >= count, 30, step_s=0.2), f"{len(entries())} of {count} lines"
    return entries()


def assert_one_cache(farm: SquidFarm, origin: OriginProcess, paths: list[str], requests: int) -> None:
    """What must be true after `requests` for `paths` went through the director, told by Squids and origin."""
    urls = [origin.base + path for path in paths]
    not_on_one = {url: nodes for url in urls if len(nodes := farm.holders(url)) != 1}
    assert not_on_one == {}
    entries = logged(farm, origin.base, paths, requests)
    assert len(entries) == requests  # none was asked for twice, none went around
    assert sum(entry.is_hit for entry in entries) / requests >= LEAST_HITS
    fetched = origin.counts()
    assert sum(fetched[f"GET {path}"] for path in paths) <= (1 - LEAST_HITS) * requests


def test_ten_thousand_requests_over_a_thousand_urls(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm, relay="workers = 2")
    paths = static_paths(unique, 1000)
    asked = paths * 10
    random.Random(1).shuffle(asked)
    with Load(director.http, origin, asked, clients=32) as load:
        load.join()
    assert load.problems == []
    assert len(load.outcomes) == 10_000
    assert {len(nodes) for nodes in owners(load.outcomes).values()} == {1}
    assert len({o.port for o in load.outcomes}) == 32  # every connection was kept to the end
    hits = sum(outcome.hit for outcome in load.outcomes)
    print(f"hit ratio {hits / 10_000:.4f}", Counter(o.node for o in load.outcomes))
    assert hits / 10_000 >= LEAST_HITS
    assert_one_cache(squid_farm, origin, paths, 10_000)
    assert wait_until(lambda: director.status()["farm"]["hashed"] == 10_000, 5)
    farm = director.status()["farm"]
    assert (farm["requests"], farm["hits"], farm["bypassed"]) == (10_000, hits, 0)
    assert all(worker["restarts"] == 0 for worker in director.status()["workers"])
    assert " relay " not in director.log()  # nothing to complain about


def test_a_downstream_squid_is_a_client(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    farm = own_farm(3)
    director = start_director(farm, relay="workers = 2")
    child = farm.add_child(director.http)
    paths = static_paths(unique, 100)
    with Load((child.host, child.http_port), origin, paths * 10, clients=8) as load:
        load.join()
    assert load.problems == []
    assert_one_cache(farm, origin, paths, 1000)
    at_child = [e for e in child.access_log() if e.url.startswith(origin.base)]
    assert {e.hierarchy for e in at_child} == {"FIRSTUP_PARENT/127.0.0.1"}
    # it sends on what it cannot store as well, and that goes around the farm
    peer = Peer(socket.create_connection((child.host, child.http_port)))
    for request in (post, lambda url, data: get(url, "Transfer-Encoding: chunked", method="PUT", body=chunk(data))):
        data = expected_body(f"/upload/{unique}?size=300000")
        peer.send(request(f"{origin.base}/upload/{unique}", data))
        assert hashlib.sha256(data).hexdigest().encode() in peer.read_answer().body
    peer.send(get(f"{origin.base}{paths[7]}", method="HEAD"))
    assert peer.read_answer("HEAD").status == 200
    peer.close()
    assert [e for node in farm.nodes for e in node.access_log() if e.method in ("POST", "PUT")] == []
    assert " relay " not in director.log()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (Debian: apt-get install curl)")
def test_curl_is_a_client(
    squid_farm: SquidFarm,
    origin: OriginProcess,
    start_director: Callable[..., Director],
    unique: str,
    tmp_path: Path,
):
    director = start_director(squid_farm, relay="workers = 2")
    paths = static_paths(unique, 50)
    wanted = paths * 10
    config = tmp_path / "curl"
    config.write_text("".join(f'url = "{origin.base}{path}"\noutput = "{tmp_path}/{n}"\n' for n, path in enumerate(wanted)))
    command = ["curl", "--silent", "--show-error", "--no-progress-meter", "--fail", "--noproxy", ""]
    command += [
        "-x",
        director.proxy,
        "--parallel",
        "--parallel-max",
        "8",
        "--write-out",
        "%{http_code}\n",
        "-K",
        str(config),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Counter(done.stdout.split()) == {"200": len(wanted)}
    for n, path in enumerate(wanted):
        file = tmp_path / str(n)
        content = file.read_bytes() if file.exists() else b""  # curl makes no file for an empty body
        assert hashlib.sha256(content).digest() == hashlib.sha256(expected_body(path)).digest(), path
    assert_one_cache(squid_farm, origin, paths, len(wanted))


PICTURES = 40
PAGE = f"""<!doctype html><title>one cache</title><body><script>
let loaded = 0;
for (let n = 0; n < {PICTURES}; n++) {{
  const image = new Image();
  image.onload = () => {{ document.body.dataset.loaded = ++loaded; }};
  image.src = "/picture/" + n + ".svg";
  document.body.append(image);
}}
</script>"""
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>'


class _Page(BaseHTTPRequestHandler):
    """A cacheable page with many pictures: what the demo's origin has none of."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = self.path == "/"
        known = page or self.path.startswith("/picture/")
        content = (PAGE if page else PICTURE if known else "").encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "text/html" if page else "image/svg+xml")
        self.send_header("Cache-Control", "public, max-age=3600")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def page_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.11", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.11:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")
def test_a_browser_is_a_client(squid_farm: SquidFarm, start_director: Callable[..., Director], page_server: str, tmp_path: Path):
    director = start_director(squid_farm, relay="workers = 2")
    for visit in ("first", "second"):  # each with an empty cache of its own
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
        # loopback is never sent to a proxy, unless one insists; its maker's servers are to be left alone
        command += [f"--proxy-server={director.proxy}", "--proxy-bypass-list=<-loopback>;*.com;*.net;*.org"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        command += [f"--user-data-dir={tmp_path / visit}", "--virtual-time-budget=20000", "--dump-dom"]
        command += [f"{page_server}/"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "HOME": str(tmp_path)}
        )
        assert f'data-loaded="{PICTURES}"' in done.stdout, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    paths = ["/", *(f"/picture/{n}.svg" for n in range(PICTURES))]
    entries = logged(squid_farm, page_server, paths, 2 * len(paths))
    assert {url: len(squid_farm.holders(url)) for url in (page_server + path for path in paths)} == {
        page_server + path: 1 for path in paths
    }
    visits: Counter[str] = Counter()
    for entry in sorted(entries):
        visits[entry.url] += 1
        assert entry.is_hit == (visits[entry.url] == 2), entry
    assert set(visits.values()) == {2}

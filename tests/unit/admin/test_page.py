"""The web page in a headless Chromium, in front of a real director with real traffic."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import signal
import tempfile
import threading
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from browser import PROGRAM, Browser, Page
from fakes import FakeSquid, get, ok
from live_director import LiveDirector, wait_until

from cachelb.admin.api import PAGE
from cachelb.counters import FARM_INDEX
from cachelb.demo.leash import Leash

ROOT = Path(__file__).parents[3]
TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = "http://www.test/<script>document.title='taken'</script>\"'\u202egpj.exe<img/src=x/onerror=alert(1)>"

pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")


# -- what is shipped


def test_every_file_of_the_page_is_package_data_and_needs_no_other_place():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["cachelb"]
    assert "admin/page/*" in data
    names = {path.name for path in PAGE.iterdir()}
    assert all(path.is_file() for path in PAGE.iterdir())
    for name in names - {"README.md", "uPlot.LICENSE"}:
        text = (PAGE / name).read_text()
        outside = re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}", text.replace("http://www.w3.org/2000/svg", ""))
        assert {found for found in outside if found != "http://www.example.com"} <= {"https://github.com"}, name  # uPlot's head
        for file in re.findall(r"""(?:/page/|from "\./)([\w.]+)""", text):
            assert file in names


def test_our_own_scripts_make_no_markup_of_texts_and_need_no_inline_style():
    for path in PAGE.iterdir():
        if path.suffix in (".js", ".html") and not path.name.startswith("uPlot"):
            text = path.read_text()
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", "onclick="):
                assert word not in text, path.name


def test_the_vendored_library_is_the_version_that_the_note_names():
    note = (PAGE / "README.md").read_text()
    version = re.search(r"uPlot ([\d.]+)\*\*", note)
    assert version
    assert f"(v{version.group(1)})" in (PAGE / "uPlot.iife.min.js").read_text()[:300]
    for name in ("uPlot.iife.min.js", "uPlot.min.css"):
        assert f"{hashlib.sha256((PAGE / name).read_bytes()).hexdigest()}  {name}" in note
    assert "MIT License" in (PAGE / "uPlot.LICENSE").read_text()


# -- the page, alive


class Farm:
    """A director, its nodes, and a client."""

    def __init__(self, directory: Path, leash: Leash, more_nodes: str = "") -> None:
        token = directory / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        self.nodes = {f"cache{number}": FakeSquid(f"127.0.0.{70 + number}") for number in (1, 2, 3)}
        for node in self.nodes.values():
            node.serve(lambda head: ok(b"x" * 500, f"X-Cache: {'HIT' if b'hit' in head else 'MISS'} from node"))
        self.director = LiveDirector(directory, leash, self.nodes, "")
        self.sections = f'[admin]\ntoken_file = "{token}"\n[health]\ninterval_s = 1.0\ntimeout_s = 0.5\n'
        self.director.configure(self.sections, more_nodes)
        self.director.launch()
        self.director.wait_for("ready: ")
        wait_until(lambda: sum(node["state"] == "up" for node in self.status()["nodes"]) == 3)

    @property
    def url(self) -> str:
        return f"http://{self.director.admin[0]}:{self.director.admin[1]}"

    def status(self) -> Any:
        return self.director.status()

    def read(self, path: str) -> Any:
        return json.loads(self.director.read(path))

    def ask(self, *urls: str) -> None:
        client = self.director.connect()
        for url in urls:
            client.send(get(url))
            assert client.read_answer().status == 200
        client.close()

    def close(self) -> None:
        self.director.close()
        for node in self.nodes.values():
            node.stop()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with Leash() as leash:
        made = Farm(tmp_path, leash)
        yield made
        made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        made = Browser(Path(profile))
        yield made
        made.close()


@pytest.fixture
def visit(browser: Browser, farm: Farm) -> Iterator[Callable[..., Page]]:
    """``visit(width, height, dark)``: a page that has figures; at the end nothing may have gone wrong in it."""
    pages: list[Page] = []

    def go(*size: Any, url: str = farm.url, **more: Any) -> Page:
        page = browser.page(*size, **more)
        pages.append(page)
        page.open(url)
        page.wait("document.querySelector('#nodes-table tbody').rows.length > 0")
        return page

    yield go
    for page in pages:
        refused = {"the server responded with a status of 401", "the server responded with a status of 400", "ERR_CONNECTION"}
        assert [text for text in page.complaints() if not any(part in text for part in refused)] == []
        assert page.hosts_asked() == {farm.url}
        page.call("Page.close")


def facts(page: Page, selector: str) -> dict[str, str]:
    """A definition list as a reader sees it."""
    script = f"[...document.querySelectorAll('{selector} > div')].map(row => [0, 1].map(at => row.children[at].textContent))"
    return dict(page.run(script))


def table(page: Page, selector: str) -> dict[str, dict[str, str]]:
    """A table by the first cell of each row, its cells by the columns' titles."""
    script = f"""(() => {{ const t = document.querySelector('{selector}');
        const titles = [...t.tHead.rows[0].cells].map(cell => cell.textContent);
        return [...t.tBodies[0].rows].map(row => [...row.cells].map((cell, at) => [titles[at], cell.textContent])); }})()"""
    return {dict(row)[next(iter(dict(row)))]: dict(row) for row in page.run(script)}


@needs_browser
def test_the_numbers_are_those_of_the_api(farm: Farm, visit: Callable[..., Page]):
    farm.ask(*(f"http://www.test/{kind}/{number}" for number in range(600) for kind in ("hit", "miss", "hit/again")))
    page = visit()
    page.wait("document.querySelector('#tiles').textContent.includes('Requests in all1,800')")
    wait_until(lambda: farm.status()["rates"]["requests_per_s"] == 0)
    page.wait("document.querySelector('#tiles').textContent.includes('Requests/s0Hit')")
    status = farm.status()
    tiles = facts(page, "#tiles")
    assert status["farm"]["requests"] == 1800
    assert status["farm"]["hits"] == 1200
    assert tiles["Hits in all"] == "1,200"
    assert tiles["Nodes up"] == "3 of 3"
    assert page.text("#tiles .note") == "of what nodes answered"
    assert tiles["Bytes in all"] == f"{status['farm']['bytes_out'] / 1e6:.1f}".removesuffix(".0") + " MB"
    rows = {name.partition("127.")[0]: row for name, row in table(page, "#nodes-table").items()}
    assert set(rows) == set(farm.nodes)
    for node in status["nodes"]:
        row = rows[node["name"]]
        assert row["Requests"] == f"{node['counters']['requests']:,}"
        assert row["State"] == "● up"
        keys, requests = row["Share"].split(" keys")
        assert keys == f"{node['key_share'] * 100:.0f} %"
        assert row["In flight"] == "0"
        assert re.fullmatch(r"\d+ % requests", requests)
    keys = farm.status()["onecache"]["index"]["keys"]
    page.wait(f"document.querySelector('#peer-list').textContent.includes('Index{keys:,} keys')")
    director = facts(page, "#director-list")
    assert status["config"]["digest"] in director["Configuration"]
    assert status["hash"]["table"] in director["Owners"]
    assert list(table(page, "#worker-table")) == ["worker 1"]
    page.wait("document.querySelector('#headline-text').textContent === 'All well'")


@needs_browser
def test_the_bars_of_all_rows_have_one_scale(farm: Farm, visit: Callable[..., Page]):
    mine = next(url for url in (f"http://www.test/{number}" for number in count()) if owner(farm, url) == "cache1")
    others = (f"http://www.test/{number}" for number in count())
    farm.ask(*[mine] * 30, *(next(url for url in others if owner(farm, url) == "cache2") for _ in range(10)))
    page = visit()
    page.wait("document.querySelector('#nodes-table').textContent.includes('75 % requests')")
    bars = page.run(
        """[...document.querySelectorAll('.bar')].map(bar => [parseFloat(bar.querySelector('.bar-text').textContent),
            ...['.fill', '.track'].map(part => bar.querySelector(part).getBoundingClientRect().width)])"""
    )
    assert len(bars) == 6
    for share, fill, track in bars:
        assert fill == pytest.approx(max(1, track * share / 75), abs=1)


@needs_browser
def test_what_happens_shows_by_itself(farm: Farm, visit: Callable[..., Page]):
    page = visit()
    page.wait("document.querySelector('#headline-text').textContent === 'All well'")
    page.run("window.stayed = true")
    farm.ask(*["http://www.test/a"] * 7)
    page.wait("document.querySelector('#tiles').textContent.includes('Requests in all7')")
    farm.nodes["cache2"].refuse()
    page.wait("document.querySelector('#headline-text').textContent === '1 problem: cache2 is dead'")
    page.wait("document.querySelector('#spoken').textContent.includes('cache2 is dead')")
    page.wait("document.querySelector('#event-list').textContent.includes('node cache2 is dead')")
    page.wait("document.querySelector('#nodes-table tbody th').textContent.startsWith('cache2')")  # worst first
    assert "✖ dead" in page.text("#nodes-table")
    page.click("#problems button")
    page.wait("document.querySelector('#filter').value === 'cache2'")
    assert [name.partition("127.")[0] for name in table(page, "#nodes-table")] == ["cache2"]
    farm.nodes["cache2"].return_to_service()
    farm.nodes["cache2"].serve(ok())
    page.wait("document.querySelector('#headline-text').textContent.startsWith('All well')")
    assert page.run("window.stayed")


@needs_browser
def test_a_slow_node_is_named(farm: Farm, visit: Callable[..., Page]):
    page = visit()
    never = threading.Event()
    url = next(url for url in (f"http://www.test/{number}" for number in count()) if owner(farm, url) == "cache2")
    others = [f"http://www.test/{number}" for number in range(40)]
    ended = threading.Event()

    def answer(head: bytes) -> bytes:
        if not head.startswith(b"TRACE"):
            never.wait(0.2)  # that is how slow it is
        return ok()

    def traffic() -> None:
        with contextlib.suppress(OSError, EOFError, AssertionError):
            for _ in range(100_000):
                if ended.is_set():
                    break
                farm.ask(url, *others)

    slow = farm.nodes["cache2"]
    slow.refuse()
    slow.return_to_service()
    slow.serve(answer)
    client = threading.Thread(target=traffic, daemon=True)
    client.start()
    try:
        page.wait("document.querySelector('#problems').textContent.includes('cache2 is slow')")
        page.wait("document.querySelector('#nodes-table tbody .cause').textContent === 'is slow'")
        page.wait("/; seen for [1-9]/.test(document.querySelector('#problems').textContent)")
    finally:
        ended.set()
        client.join()


def owner(farm: Farm, url: str) -> str:
    return str(farm.read("/api/v1/explain?" + urllib.parse.urlencode({"url": url}))["owner"])


@needs_browser
def test_a_request_is_explained_from_the_keyboard(farm: Farm, visit: Callable[..., Page]):
    page = visit()
    page.run("document.querySelector('#explain-url').focus()")
    url = "http://www.example.com/a?b=1&c=<i>"
    page.call("Input.insertText", text=url)
    page.press("Enter", 13)
    page.wait("document.querySelector('#explanation dl')")
    found = farm.read("/api/v1/explain?" + urllib.parse.urlencode({"url": url}))
    shown = facts(page, "#explanation dl")
    assert shown["Owner"] == found["owner"]
    assert shown["Asked in turn"] == ", then ".join(found["to"])
    assert shown["Key"] == found["key"]
    order = [row["Node"] for row in table(page, "#explanation table").values()]
    assert order == [node["name"] for node in found["nodes"]]
    assert url in page.text("#explanation .goes")

    page.fill("#explain-method", "POST")
    page.press("Enter", 13)
    page.wait("document.querySelector('#explanation .goes').textContent.startsWith('POST')")
    assert facts(page, "#explanation dl")["Kind"] == "bypass"

    page.fill("#explain-client", "nobody")
    page.press("Enter", 13)
    page.wait("document.querySelector('#explanation .refusal')")


@needs_browser
def test_a_node_is_drained_with_the_token_only(farm: Farm, visit: Callable[..., Page]):
    page = visit()

    def state() -> str:
        return str({node["name"]: node["state"] for node in farm.status()["nodes"]}["cache1"])

    page.run("document.querySelector('[aria-label=\"Drain cache1\"]').focus()")
    page.press("Enter", 13)
    page.wait("document.querySelector('#steer').open")
    assert page.text("#steer-head") == "Drain cache1?"
    for wrong, said in (("", "Give the token"), ("wrong", "Refused: "), ("wröng", "Refused: ")):
        page.fill("#steer-token", wrong)
        page.click("#steer-do")
        page.wait(f"document.querySelector('#steer-error').textContent.startsWith('{said}')")
        page.run("document.querySelector('#steer-error').textContent = ''")
        assert state() == "up"
    page.press("Escape", 27)
    page.wait("!document.querySelector('#steer').open")
    assert page.run("document.activeElement.getAttribute('aria-label')") == "Drain cache1"
    assert page.run("sessionStorage.length + localStorage.length") == 0

    page.press("Enter", 13)
    page.wait("document.querySelector('#steer').open")
    page.call("Input.insertText", text=TOKEN)
    page.press("Enter", 13)
    page.wait("!document.querySelector('#steer').open")
    assert state() == "drain"
    page.wait("document.querySelector('#problems').textContent.includes('cache1 is drained')")
    page.wait("document.querySelector('#event-list').textContent.includes('cache1')")
    assert page.run("[localStorage.length, document.cookie, Object.values(sessionStorage)]") == [0, "", [TOKEN]]

    page.wait("document.querySelector('[aria-label=\"Undrain cache1\"]')")
    page.click('[aria-label="Undrain cache1"]')
    page.click("#steer-do")  # the tab knows the token
    page.wait("!document.querySelector('#steer').open")
    page.wait("document.querySelector('[aria-label=\"Drain cache1\"]')")
    assert state() == "up"
    page.click("#forget")
    assert page.run("sessionStorage.length") == 0
    assert page.run("document.querySelector('#steer-token').value") == ""


@needs_browser
def test_a_hostile_url_is_a_text(farm: Farm, visit: Callable[..., Page]):
    wire = HOSTILE.encode().decode("latin-1")
    farm.ask(*[wire] * 30)
    page = visit()
    page.wait("document.querySelector('#hot-table tbody').rows.length > 0")
    shown = page.run("document.querySelector('#hot-table tbody th').textContent")
    assert "<script>document.title='taken'</script>" in shown
    assert "<img/src=x/onerror=alert(1)>" in shown
    assert "\u202e" not in shown
    assert "\\u202e" in shown or "%E2%80%AE" in shown
    page.click("#hot-table button")  # explains it
    page.wait("document.querySelector('#explanation .goes')")
    assert "<script>" in page.text("#explanation .goes")
    assert "\u202e" not in page.run("document.body.textContent")
    assert page.run("document.querySelectorAll('main script, main img').length") == 0
    assert "taken" not in page.run("document.title")
    page.fill("#hot-what", "around")  # nothing went around the farm
    page.wait("document.querySelector('#hot-table tbody').rows.length === 0 && document.querySelector('#hot-by').disabled")


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(farm: Farm):
    for path in ("/", "/page/page.js", "/page/page.css"):
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(farm.url + path, timeout=10) as answer:
            policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


@needs_browser
def test_it_recovers_when_the_director_is_started_again(farm: Farm, visit: Callable[..., Page]):
    page = visit()
    farm.director.signal(signal.SIGTERM)
    farm.director.ended()
    page.wait("document.body.innerText.includes('The director does not answer')")  # the last figures may show it draining, too
    assert re.fullmatch(r"Figures are \d+ s old", page.text("#age"))
    assert page.run("document.body.classList.contains('stale')")
    farm.director.launch()
    page.wait("document.querySelector('#headline-text').textContent.startsWith('All well')", 60)
    farm.ask("http://www.test/again")
    page.wait("document.querySelector('#tiles').textContent.includes('Requests in all1Hits')")
    page.wait("document.querySelectorAll('#event-list li').length > 0")
    texts = page.run("[...document.querySelectorAll('#event-list .what')].map(e => e.textContent)")
    assert texts == [event["text"] for event in reversed(farm.read("/api/v1/events")["events"])]


@needs_browser
def test_from_elsewhere_the_page_asks_for_the_token_first(farm: Farm, browser: Browser):
    page = browser.page()
    # As the director answers to other addresses than loopback, where this test's traffic must not go.
    page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source=f"""const real = window.fetch; window.fetch = (path, more = {{}}) =>
            more.headers?.Authorization === 'Bearer {TOKEN}' ? real(path, more) : Promise.resolve(new Response(
                '{{"detail": "from another address needs the token"}}', {{ status: 401 }}))""",
    )
    page.open(farm.url)
    page.wait("!document.querySelector('#token-form').hidden")
    page.fill("#token-read", TOKEN)
    page.click("#token-form button")
    page.wait("document.querySelector('#nodes-table tbody').rows.length === 3")
    assert page.run("document.querySelector('#token-form').hidden")
    page.wait("document.querySelectorAll('#event-list li').length > 0")
    page.call("Page.close")


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_is_readable_at_every_width_and_in_both_themes(farm: Farm, visit: Callable[..., Page], width: int, dark: bool):
    farm.ask(*[f"http://www.test/{'long' * 60}/{number}" for number in range(20)])
    page = visit(width, 800, dark)
    page.wait("document.querySelector('#hot-table tbody').rows.length > 0")
    assert page.run("document.documentElement.scrollWidth") == width
    # WCAG 2.2, 1.4.3: 4.5 to 1 for all text, measured on what is seen
    worst = page.run(CONTRAST)
    assert worst["ratio"] >= 4.5, worst
    assert page.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark


CONTRAST = """(() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = (c) => c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; }
    return [255, 255, 255, 1]; };
  let worst = { ratio: 99 };
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    if (!e.checkVisibility() || e.closest('.skip, .unseen')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text: e.textContent.slice(0, 40), place: e.className || e.id || e.tagName };
  }
  return worst;
})()"""


@needs_browser
def test_a_screen_reader_and_a_keyboard_find_everything(farm: Farm, visit: Callable[..., Page]):
    page = visit()
    page.call("Accessibility.enable")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    roles = [role for role, _ in named]
    assert {"main", "banner", "navigation"} <= set(roles)
    needs_name = {"button", "textbox", "searchbox", "combobox", "table", "region", "image", "navigation", "columnheader"}
    assert [role for role, name in named if role in needs_name and not name] in ([], ["columnheader"])  # over the buttons
    assert roles.count("rowheader") >= 3
    seen = []
    for _ in range(60):
        page.press("Tab", 9)
        seen.append(page.run("document.activeElement.id || document.activeElement.getAttribute('aria-label') || ''"))
        outline = page.run("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px" or page.run("document.activeElement === document.body")
    assert {"filter", "order", "Drain cache1", "chart-of", "hot-what", "explain-url", "event-list"} <= set(seen)
    assert page.run("document.querySelector('#spoken').getAttribute('aria-live')") == "polite"


@needs_browser
def test_two_hundred_nodes_are_sorted_and_filtered(browser: Browser, tmp_path: Path):
    more = "".join(
        f'[[node]]\nname = "extra{number}"\nhost = "127.0.3.{number}"\nhttp_port = 9\nstate = "{("up", "drain")[number % 2]}"\n'
        for number in range(1, 198)
    )
    with Leash() as leash:
        farm = Farm(tmp_path, leash, more)
        try:
            page = browser.page()
            page.open(farm.url)
            page.wait("document.querySelector('#nodes-table tbody').rows.length === 24")
            page.wait("document.querySelector('#nodes-table tbody td .state').textContent === '✖ dead'")
            assert page.text("#all-nodes") == "Show all 200 nodes"
            page.click("#all-nodes")
            page.wait("document.querySelector('#nodes-table tbody').rows.length === 200")
            page.fill("#filter-state", "up")
            page.wait("document.querySelector('#nodes-table tbody').rows.length === 3")
            page.fill("#filter-state", "")
            page.fill("#filter", "127.0.3.19")
            names = [name.partition("127.")[0] for name in table(page, "#nodes-table")]
            assert sorted(names) == sorted(f"extra{number}" for number in (19, *range(190, 198)))
            page.fill("#order", "name")
            names = [name.partition("127.")[0] for name in table(page, "#nodes-table")]
            assert names == [f"extra{number}" for number in (19, *range(190, 198))]
            assert page.run("document.documentElement.scrollWidth") == 1280
            assert page.complaints() == []
            page.call("Page.close")
        finally:
            farm.close()


@needs_browser
def test_the_hit_ratio_says_what_it_is_of(farm: Farm, visit: Callable[..., Page]):
    page = visit()

    def note(bypassed: float, requests: float = 100) -> str:
        rates = json.dumps({"requests_per_s": requests, "bypassed_per_s": bypassed, "hits_per_s": 30})
        return str(page.run(f"import('/page/verdict.js').then(module => module.hitNote({rates}))"))

    assert note(5) == note(0) == note(0, requests=0) == "of what nodes answered"
    assert note(60) == "of what nodes answered; of all requests 30 %"
    assert note(60, requests=20).endswith(" 100 %")


def test_every_cause_of_a_bypass_has_its_words():
    script = (PAGE / "verdict.js").read_text()
    table = script.partition("const BYPASS_CAUSES = {")[2].partition("}")[0]
    names = {name.removeprefix("bypassed_") for name in FARM_INDEX if name.startswith("bypassed_")}
    assert set(re.findall(r"^  (\w+): ", table, re.MULTILINE)) == names


# -- the verdict: what has to be seen at once

NODE = {"state": "up", "weight": 1, "share": 1, "key_share": 0.25, "since_s": 60, "cause": "probes fail", "drain": None}
RATES = {"requests_per_s": 50, "first_byte_p50_ms": 2, "errors_per_s": 0}
FAULTS = {"connect_failures": 0, "resets": 9, "timeouts": 0, "bad_responses": 0}
FARM_RATES = {"requests_per_s": 200, "errors_per_s": 0, "bypassed_per_s": 0, "refused_per_s": 0}
TOP = {"name": "http://h/x", "owner": "n1", "requests_share": 0.5, "hit_ratio": 0.98, "bytes_share": 0.1, "bytes": 9}


def status_of(change: dict[str, Any]) -> dict[str, Any]:
    """A status of four nodes; ``change``: of the first node, its rates, the farm's rates, or of the status itself."""
    nodes = [NODE | {"name": f"n{at}", "rates": RATES, "counters": FAULTS} for at in range(4)]
    nodes[0] = nodes[0] | change.get("node", {}) | {"rates": RATES | change.get("rates", {})}
    worker = {"number": 1, "pid": 5, "loop_lag_ms": 1} | change.get("worker", {})
    found = {"state": "running", "config": {"problems": []}, "workers": [worker], "nodes": nodes}
    farm = {"bypassed_method": 700, "bypassed_no_store": 5}
    return found | {"rates": FARM_RATES | change.get("farm", {}), "farm": farm} | change.get("status", {})


@needs_browser
def test_the_verdict_names_what_is_wrong_and_where(farm: Farm, visit: Callable[..., Page]):
    page = visit()

    def judge(hot: Any = None, silence_s: float = 0, history: Any = None, **change: Any) -> tuple[str, list[list[str]]]:
        known = {"statuses": [status_of(change)], "hot": hot, "history": history, "silence_s": silence_s, "silent_after_s": 7}
        script = f"import('/page/verdict.js').then(module => module.judge({json.dumps(known)}))"
        found = page.run(script)
        return found["level"], [[problem["title"], problem["node"], problem["detail"]] for problem in found["problems"]]

    def first(**change: Any) -> tuple[str, str, str]:
        level, problems = judge(**change)
        return level, problems[0][0], problems[0][1]

    assert judge() == ("ok", [])
    assert first(node={"state": "dead"}) == ("bad", "n0 is dead", "n0")
    assert first(rates={"first_byte_p50_ms": 400}) == ("warn", "n0 is slow", "n0")
    assert judge(rates={"first_byte_p50_ms": 40})[0] == "ok"
    assert judge(rates={"first_byte_p50_ms": 400, "requests_per_s": 0.1})[0] == "ok"
    assert first(rates={"errors_per_s": 1}) == ("warn", "n0 fails", "n0")
    level, problems = judge(rates={"errors_per_s": 10})
    assert (level, problems[0][0]) == ("bad", "n0 fails")
    assert "9 resets" in problems[0][2]
    assert problems[0][2].endswith("no client saw an error")
    level, problems = judge(rates={"errors_per_s": 10}, farm={"errors_per_s": 1.5})
    assert problems[0][2].endswith("clients of the farm got 1.5 errors/s")
    drain = {"for_s": 3, "in_flight": 2, "in_flight_at_start": 5, "keys_moved": 1, "eta_s": 4, "done": False}
    level, problems = judge(node={"state": "drain", "drain": drain})
    assert (level, problems[0]) == ("note", ["n0 is draining", "n0", "2 in flight, done in about 4 s"])
    level, problems = judge(farm={"bypassed_per_s": 150})
    why = "75 %: methods other than GET and HEAD"
    assert (level, problems[0][0], problems[0][2]) == ("warn", "Most requests go around the farm", why)
    around = [{"name": "api/v1/", "requests_share": 0.6}, {"name": "api/v2/", "requests_share": 0.1}]
    hot = {"requests": 1400, "window_s": 60, "urls_by_requests": [], "urls_by_bytes": [], "around_by_requests": around}
    level, problems = judge(farm={"bypassed_per_s": 150}, hot=hot)
    assert problems[0][2] == f"{why}; the most for api/v1/"
    assert problems[0][1] == ""
    assert first(farm={"refused_per_s": 50})[1] == "Many requests are refused"
    assert first(farm={"errors_per_s": 50}) == ("bad", "Clients get errors", "")
    assert first(status={"config": {"problems": ["x"]}})[1] == "The last reload was refused"
    assert first(worker={"pid": 0}) == ("bad", "No worker runs", "")
    assert first(worker={"loop_lag_ms": 300})[1] == "Workers are late"
    assert first(silence_s=8) == ("bad", "The director does not answer", "")
    hot = {"requests": 1000, "window_s": 60, "urls_by_requests": [TOP], "urls_by_bytes": [TOP]}
    assert first(hot=hot) == ("note", "One URL is hot", "n1")
    well = "; nothing to do while its owner is well"
    assert judge(hot=hot)[1][0][2] == f"http://h/x: 50 % of requests in 1 min, hit ratio 98 %, all at n1{well}"
    level, problems = judge(hot=hot | {"urls_by_requests": [TOP | {"owner": "n0"}]}, rates={"errors_per_s": 10})
    assert problems[1][2].endswith("all at n0")
    assert judge(hot=hot | {"requests": 20})[0] == "ok"
    assert first(history={"farm": {"hit_ratio": [0.8] * 30 + [0.3] * 6}})[1] == "The hit ratio has dropped"
    assert judge(history={"farm": {"hit_ratio": [0.8] * 36}})[0] == "ok"
    dead = [NODE | {"name": "n9", "state": "dead", "rates": RATES, "counters": FAULTS}]
    level, problems = judge(status={"nodes": dead})
    assert (level, [problem[0] for problem in problems]) == ("bad", ["No node is up", "n9 is dead"])

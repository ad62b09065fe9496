"""The windows over the live screen."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

from cachelb.tools.stats.dialogs import KEYS, clean_lines, explained
from fakes_stats import hot
from fakes_watch import Screen, watching
from textual.widgets import Input

ANSWER: dict[str, Any] = {
    "goes": "to b, its owner",
    "why": "get",
    "rule": "",
    "owner": "b",
    "key": "http://www.test/\x1b[2J",
    "holders": ["b", "c"],
    "status": 0,
    "nodes": [
        {"place": 2, "name": "a", "state": "dead", "tried": 0},
        {"place": 1, "name": "b", "state": "up", "tried": 1},
    ],
}


def test_an_explanation_says_who_owns_a_url_and_who_holds_it():
    text = explained(ANSWER).plain
    assert "goes     to b, its owner\n" in text
    assert "held by  b, c\n" in text
    assert text.index("1 b: up, asked as number 1") < text.index("2 a: dead, not asked")
    assert "\x1b" not in text


def test_a_refused_request_is_explained_with_its_status():
    text = explained({"goes": "nowhere", "status": 403, "reason": "access_denied"}).plain
    assert "refused  403 access_denied" in text
    assert "no node, as far as is known" in text


def test_a_url_is_asked_for_as_it_was_typed():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("e")
        screen.app.screen.query_one(Input).value = "http://www.test/q?d=1&u=2"
        await screen.pilot.press("enter")
        await screen.until(lambda: "to b, its owner" in screen.window)
        query = next(urlsplit(path).query for _, path, _, _ in screen.fake.asked if "/explain" in path)
        assert parse_qs(query) == {"url": ["http://www.test/q?d=1&u=2"]}
        screen.fake.answers["/explain"] = 400
        await screen.pilot.press("enter")
        await screen.until(lambda: "a sentence of the director's" in screen.window)
        await screen.pilot.press("escape")
        assert len(screen.app.screen_stack) == 1

    watching(test, **{"/explain": ANSWER})


def test_the_hot_list_turns_to_hosts_by_bytes():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("h")
        await screen.until(lambda: "http://www.test/1" in screen.window)
        assert "URL of the last 60 s, by requests" in screen.window
        await screen.pilot.press("tab")
        assert "nothing was asked for" in screen.window
        await screen.pilot.press("tab", "tab", "tab")
        assert "host of the last 60 s, by bytes" in screen.window
        await screen.pilot.press("escape")
        assert len(screen.app.screen_stack) == 1

    watching(test, **{"/hot": hot("http://www.test/1", "http://www.test/2")})


def test_the_keys_fit_their_window():
    assert max(map(len, KEYS.splitlines())) <= 80 * 0.94 - 4
    assert len(KEYS.splitlines()) <= 24 * 0.9 - 2


def test_lines_stay_and_what_a_terminal_obeys_goes():
    assert clean_lines("a\nb\x1b") == "a\nb\ufffd"

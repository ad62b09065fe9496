"""The live screen, driven by keys as an operator drives it."""

import pytest
from cachelb.tools.stats.dialogs import Confirm, Help
from cachelb.tools.stats.farm import Answers, read
from cachelb.tools.stats.watch import question, share_out
from fakes_stats import hot, node, status
from fakes_watch import Screen, watching
from rich.text import Text
from textual.widgets import OptionList


def test_the_verdict_and_the_nodes_are_shown_and_follow_the_farm():
    async def test(screen: Screen) -> None:
        assert screen.part("verdict").startswith("✔ all well")
        assert [row.split()[0] for row in screen.rows] == ["a", "b", "c"]
        screen.fake.answers["/status"] = status(node("a"), node("b"), node("c", state="dead"))
        await screen.until(lambda: "NOT WELL" in screen.part("verdict"))
        assert screen.rows[0].startswith("✖ c")

    watching(test)


def test_draining_asks_first_and_does_nothing_without_a_yes():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("down", "d")
        assert isinstance(screen.app.screen, Confirm)
        assert "Drain b?" in screen.window
        await screen.pilot.press("n")
        await screen.pilot.press("d", "escape")
        assert screen.puts == []
        await screen.pilot.press("d", "y")
        await screen.until(lambda: screen.puts)
        assert screen.puts == [("/api/v1/nodes/b", {"state": "drain"})]
        assert any(method == "PUT" and given == "Bearer secret" for method, _, given, _ in screen.fake.asked)

    watching(test, token="secret", **{"/nodes/b": node("b", state="drain")})


def test_a_drained_node_is_brought_back():
    async def test(screen: Screen) -> None:
        await screen.until(lambda: screen.rows[0].startswith("· b"))
        await screen.pilot.press("u", "y")
        await screen.until(lambda: screen.puts)
        assert screen.puts == [("/api/v1/nodes/b", {"state": "up"})]

    drained = status(node("a"), node("b", state="drain", drain={"done": True}))
    watching(test, token="secret", **{"/status": drained, "/nodes/b": node("b")})


def test_without_a_token_it_says_so_before_it_asks():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("d")
        assert not isinstance(screen.app.screen, Confirm)
        (note,) = screen.app._notifications
        assert "--token-file" in note.message
        assert screen.puts == []

    watching(test)


def test_a_refusal_is_shown_with_the_directors_words():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("d", "y")
        said = screen.app._notifications
        await screen.until(lambda: any("is as it was" in note.message for note in said))
        text = next(note.message for note in said)
        assert text == "a is as it was: a sentence of the director's"

    watching(test, token="secret", **{"/nodes/a": 401})


def test_the_cursor_stays_on_its_node_when_the_order_changes():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("down")
        assert screen.app.chosen is not None
        assert screen.app.chosen.name == "b"
        screen.fake.answers["/status"] = status(node("a"), node("b"), node("c", state="dead"))
        await screen.until(lambda: screen.rows[0].startswith("✖ c"))
        assert screen.app.chosen.name == "b"

    watching(test)


def test_columns_are_sorted_by_keys():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("s")
        assert screen.app.by == "name"
        await screen.pilot.press("r")
        assert [row.split()[0] for row in screen.rows] == ["c", "b", "a"]
        await screen.pilot.press("S")
        assert screen.app.by == "worst"

    watching(test)


def test_a_director_that_goes_away_is_said_with_the_age_and_nothing_is_lost():
    async def test(screen: Screen) -> None:
        screen.fake.answers["/status"] = b"no JSON"
        await screen.until(lambda: "no answer; what is shown is" in screen.part("verdict"))
        assert len(screen.rows) == 3
        screen.fake.answers["/status"] = status()
        await screen.until(lambda: "all well" in screen.part("verdict"))

    watching(test)


def test_a_director_that_is_down_at_first_is_asked_again():
    async def test(screen: Screen) -> None:
        await screen.until(lambda: "I ask again" in screen.part("verdict"))
        screen.fake.answers["/status"] = status()
        await screen.until(lambda: "all well" in screen.part("verdict"))

    watching(test, **{"/status": b"no JSON"})


def test_a_paused_screen_stands_still():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("space")
        assert screen.part("verdict").startswith("paused")
        await screen.until(lambda: not screen.app._is_asking)
        asked = len(screen.fake.asked)
        await screen.pilot.pause(0.2)
        assert len(screen.fake.asked) == asked
        await screen.pilot.press("space")
        await screen.until(lambda: len(screen.fake.asked) > asked)

    watching(test)


def test_help_opens_and_q_ends():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("question_mark")
        assert isinstance(screen.app.screen, Help)
        await screen.pilot.press("escape", "q")
        await screen.until(lambda: not screen.app.is_running)
        assert not screen.app.return_code

    watching(test)


@pytest.mark.parametrize("size", [(80, 24), (60, 16), (132, 50)])
def test_nodes_are_seen_however_much_is_wrong(size: tuple[int, int]):
    async def test(screen: Screen) -> None:
        await screen.until(lambda: screen.rows)
        await screen.pilot.pause()
        table = screen.app.query_one("#nodes", OptionList)
        assert table.size.height >= 4
        assert table.region.bottom <= size[1] - 1

    sick = [node(f"n{i}", state="dead", cause="a long cause " * 9) for i in range(9)]
    rest = {"problems": ["p" * 300]}
    watching(test, size=size, **{"/status": status(*sick, config=rest), "/hot": hot(*(f"http://{i}/" for i in range(20)))})


def test_many_nodes_can_all_be_reached():
    async def test(screen: Screen) -> None:
        await screen.pilot.press("end")
        assert screen.app.chosen is not None
        assert screen.app.chosen.name == "n199"
        assert len(screen.rows) == 200

    watching(test, **{"/status": status(*(node(f"n{i:03}") for i in range(200)))})


def test_room_is_shared_out_for_what_matters_most():
    def lines(count: int) -> list[Text]:
        return [Text("x")] * count

    said, about, below = share_out(24, 4, lines(3), lines(4), lines(20))
    assert (len(said), len(about)) == (3, 4)
    assert len(said) + 1 + len(about) + len(below) == 24 - 3 - 4
    said, about, below = share_out(24, 50, lines(40), lines(4), lines(20))
    assert (about, below) == ([], [])
    assert len(said) == 24 - 3 - 8
    assert "more lines" in said[-1].plain


def test_the_question_says_what_would_happen():
    found = read(Answers(status(node("cache1", key_share=0.334, in_flight=7)))).nodes[0]
    assert "33 % of all keys" in question(found, "drain")
    assert "7 requests in flight" in question(found, "drain")
    assert "Bring cache1 back?" in question(found, "up")

"""``cachelb-stats --watch``: the screen, live, with keys.

The director is asked in a thread, so that keys work however late its answers are; what was known last stays, with its age.
Left out: what is said and how it looks (``verdict``, ``screen``), the windows that ask something (``dialogs``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Footer, OptionList, Static
from textual.widgets.option_list import Option

from .client import Down, Refused
from .dialogs import Confirm, Explain, Help, HotList
from .farm import Farm, Node
from .poll import Poller
from .screen import Look, events, figures, hot, top
from .table import BY_NAME, ORDERS, STYLES, lay_out, order, row, titles
from .units import percent
from .verdict import Verdict, judge

HOT_KEPT = 50  # for the hot list; the screen shows a few of them
FRAME_LINES = 3  # a blank line, the titles and the keys
SEEN_NODES = 4


class Watch(App[None]):
    """The live screen of one director."""

    CSS = """
    #top { height: auto; }
    #titles { height: 1; margin-top: 1; }
    #nodes { height: 1fr; min-height: 3; border: none; padding: 0; background: $background; }
    #nodes > .option-list--option { padding: 0; }
    #bottom { height: auto; }
    Window { align: center middle; }
    Window #box { width: 94%; max-width: 110; height: auto; max-height: 90%; padding: 0 1; border: round $primary;
                  background: $surface; }
    Window #text { height: auto; }
    Explain #box { height: 80%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "help"),
        Binding("s,right", "sort(1)", "sort"),
        Binding("S,left", "sort(-1)", "sort back", show=False),
        Binding("r", "turn", "reverse", show=False),
        Binding("d", "steer('drain')", "drain"),
        Binding("u", "steer('up')", "undrain"),
        Binding("h", "hot", "hot"),
        Binding("e", "explain", "explain"),
        Binding("space", "pause", "pause", show=False),
        Binding("q", "quit", "quit"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, poller: Poller, interval_s: float = 1.0, by: str = "worst", is_reversed: bool = False) -> None:
        super().__init__()
        self.poller, self.interval_s = poller, interval_s
        self.by, self.is_reversed, self.is_paused = by, is_reversed, False
        self.farm: Farm | None = None
        self.verdict: Verdict | None = None
        self._is_asking = False

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="top", can_focus=False):
            yield Static(f"asking {self.poller.admin.where} ...", id="verdict", markup=False)
        with Vertical():
            yield Static("", id="titles", markup=False)
            yield OptionList(id="nodes", markup=False)
        yield Static("", id="bottom", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#nodes").focus()
        self.look_now()
        self.set_interval(self.interval_s, self.look_now)

    # -- looking

    def look_now(self) -> None:
        """Ask, unless the last question is still open."""
        if not self._is_asking and not self.is_paused:
            self._is_asking = True
            self.run_worker(self._ask, thread=True, group="look")

    def _ask(self) -> None:
        farm: Farm | None
        try:
            farm = self.poller.farm(HOT_KEPT)
        except (Down, Refused):
            farm = self.poller.last()
        self.call_from_thread(self._take, farm, None if farm is None else judge(farm))

    def _take(self, farm: Farm | None, verdict: Verdict | None) -> None:
        self._is_asking = False
        if not self.query("#verdict"):
            return  # it is ending
        if farm is None:
            self.query_one("#verdict", Static).update(Text(f"✖ {self.poller.problem}\n\nI ask again. q: quit", style="bold red"))
            return
        self.farm, self.verdict = farm, verdict
        self.draw()

    def on_resize(self) -> None:
        if self.farm is not None:
            self.call_after_refresh(self.draw)

    def draw(self) -> None:
        """Show what is known."""
        farm, verdict = self.farm, self.verdict
        if farm is None or verdict is None:
            return
        width, height = max(20, self.size.width), self.size.height
        look = Look(width=width, order=self.by, is_reversed=self.is_reversed, hot=8)
        paused = [Text("paused; space goes on", style="bold reverse")] if self.is_paused else []
        said, about = [*paused, *top(farm, verdict, look)], figures(farm, look)
        said, about, below = share_out(height, len(farm.nodes), said, about, [*hot(farm, look), *events(farm, look)])
        self.query_one("#verdict", Static).update(_lines([*said, *([Text()] if about else []), *about]))
        self.query_one("#bottom", Static).update(_lines(below))
        self._draw_nodes(farm, verdict, width)

    def _draw_nodes(self, farm: Farm, verdict: Verdict, width: int) -> None:
        nodes = order(farm.nodes, verdict, self.by, self.is_reversed)
        layout = lay_out(width - 2, nodes)  # two for the scroll bar
        self.query_one("#titles", Static).update(Text(titles(layout), style="bold"))
        lines = {node.name: _row(layout, node, verdict) for node in nodes}
        table = self.query_one("#nodes", OptionList)
        if [option.id for option in table.options] == [_id(name) for name in lines]:
            for at, line in enumerate(lines.values()):
                table.replace_option_prompt_at_index(at, line)
            return
        chosen = self.chosen
        table.clear_options()
        table.add_options([Option(line, id=_id(name)) for name, line in lines.items()])
        if lines:
            names = list(lines)
            table.highlighted = names.index(chosen.name) if chosen is not None and chosen.name in lines else 0

    @property
    def chosen(self) -> Node | None:
        """The node that the cursor is on."""
        table = self.query_one("#nodes", OptionList)
        if self.farm is None or table.highlighted is None:
            return None
        wanted = table.get_option_at_index(table.highlighted).id
        return next((node for node in self.farm.nodes if _id(node.name) == wanted), None)

    # -- keys

    def action_sort(self, step: int) -> None:
        self.by = ORDERS[(ORDERS.index(self.by) + step) % len(ORDERS)]
        self._say_order()

    def action_turn(self) -> None:
        self.is_reversed = not self.is_reversed
        self._say_order()

    def _say_order(self) -> None:
        self.clear_notifications()
        title = BY_NAME[self.by].title if self.by in BY_NAME else "worst first"
        self.notify(f"by {title}{', reversed' if self.is_reversed else ''}", timeout=2, markup=False)
        self.draw()

    def action_pause(self) -> None:
        self.is_paused = not self.is_paused
        self.draw()

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_hot(self) -> None:
        if self.farm is not None:
            self.push_screen(HotList(lambda: self.farm))

    def action_explain(self) -> None:
        self.push_screen(Explain(self.poller.admin))

    def action_steer(self, state: str) -> None:
        """Ask whether it is meant, then do it."""
        node = self.chosen
        if node is None:
            self.notify("there is no node to choose", severity="warning")
            return
        if state == node.state and not node.drain:
            self.notify(f"{node.name} is {node.state} already")
            return
        if not self.poller.admin.may_change:
            text = "draining, and taking it back, needs the token: start me with --token-file, or --admin with the Unix socket"
            self.notify(text, severity="warning", timeout=10, markup=False)
            return

        def answered(is_meant: bool | None) -> None:
            if is_meant:
                self.run_worker(lambda: self._steer(node.name, state), thread=True, group="steer")

        self.push_screen(Confirm(question(node, state)), answered)

    def _steer(self, name: str, state: str) -> None:
        done = "drained: it ends what runs" if state == "drain" else "in service again"
        try:
            self.poller.admin.set_state(name, state)
        except (Down, Refused) as problem:
            self._say(f"{name} is as it was: {problem}", "error", 15)
        else:
            self._say(f"{name} is {done}", "information", 5)
        self.call_from_thread(self.look_now)

    def _say(self, text: str, severity: Any, seconds: float) -> None:
        notify: Callable[..., None] = self.notify
        self.call_from_thread(notify, text, severity=severity, timeout=seconds, markup=False)


def share_out(
    height: int, nodes: int, said: list[Text], about: list[Text], below: list[Text]
) -> tuple[list[Text], list[Text], list[Text]]:
    """What of the parts fits above and below the nodes, of which some must be seen whatever else is wrong."""
    room = height - FRAME_LINES - min(nodes, max(SEEN_NODES, height // 3))
    if len(said) > max(room, 2):
        left = len(said) - max(room, 2) + 1
        said = [*said[: max(room, 2) - 1], Text(f"  +{left} more lines; make the terminal higher", style="dim")]
    room -= len(said)
    about = about if room > len(about) else []
    room -= len(about) + bool(about)
    return said, about, below[: max(0, room)] if room > 2 else []


def question(node: Node, state: str) -> str:
    """What would happen to a node, as a question."""
    if state == "drain":
        return (
            f"Drain {node.name}?\n\nIt gets no new requests: its {percent(node.keys)} % of all keys go to the others, which will "
            f"have to fetch them. Its {node.in_flight} requests in flight are finished. u brings it back."
        )
    return f"Bring {node.name} back?\n\nIt gets its own keys again at once, and no others move."


def _row(layout: Any, node: Node, verdict: Verdict) -> Text:
    level = verdict.of_node(node.name)
    return Text(row(layout, node, level), style=STYLES[level], no_wrap=True, overflow="crop")


def _id(name: str) -> str:
    return f"node-{name}"


def _lines(lines: list[Text]) -> Text:
    return Text("\n").join(lines)

"""The windows over the live screen: a question, the hot URLs, a URL explained, the keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from .client import Admin, Down, Refused
from .farm import Farm, listed
from .screen import Look, hot
from .units import clean

KEYS = """\
↑ ↓    choose a node         d u    drain it, bring it back: both ask
s S    sort by a column      r      the other way round
h      hot URLs and hosts    e      explain a URL: who owns it, and why
space  pause                 q Esc  quit; close a window

mark   ✖ wrong   ! something is the matter   · worth knowing
req%   part of the requests to nodes; key% of all keys, owned now
hit%   of its answers, as the node marks them
B/s    bytes sent to clients from it
p50 99 from a request's head to the end of its answer, last second
err/s  connections refused or reset, answers late or broken
open   requests in flight
trend  requests per second in the last minutes, from 0 to the most

Draining needs the token (--token-file), or the director's Unix
socket (--admin PATH). docs/stats.md says what each verdict means."""
KINDS = ("urls_by_requests", "around_by_requests", "urls_by_bytes", "hosts_by_requests", "hosts_by_bytes")


class Window(ModalScreen[Any]):
    """A box that Esc closes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "close")]

    def box(self, text: str | Text) -> VerticalScroll:
        """The box with its text."""
        return VerticalScroll(Static(text, id="text", markup=False), id="box")

    def say(self, text: str | Text) -> None:
        self.query_one("#text", Static).update(text)

    @property
    def room(self) -> int:
        """Cells for text."""
        return max(40, min(110, self.app.size.width * 9 // 10) - 6)


class Help(Window):
    """The keys and the columns."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark,q", "dismiss(None)", "close")]

    def compose(self) -> ComposeResult:
        yield self.box(KEYS)


class Confirm(Window):
    """A question; True only for y."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes"),
        Binding("n,q", "dismiss(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        yield self.box(Text(clean_lines(self.question)).append("\n\ny  yes      n  no", style="bold"))


class HotList(Window):
    """What is asked for most; live."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab,space", "next", "next"),
        Binding("h,q", "dismiss(None)", "close"),
    ]

    def __init__(self, farm: Callable[[], Farm | None]) -> None:
        super().__init__()
        self.farm, self.kind = farm, 0

    def compose(self) -> ComposeResult:
        yield self.box("")

    def on_mount(self) -> None:
        self.draw()
        self.set_interval(1.0, self.draw)

    def action_next(self) -> None:
        self.kind = (self.kind + 1) % len(KINDS)
        self.draw()

    def draw(self) -> None:
        farm = self.farm()
        if farm is None:
            return
        look = Look(width=self.room, hot=max(5, self.app.size.height - 10))
        lines = hot(farm, look, KINDS[self.kind]) or [Text("nothing was asked for lately, or the director does not say")]
        self.say(Text("\n").join([*lines, Text(), Text("tab: around the farm, by bytes, hosts      Esc: back", style="dim")]))


class Explain(Window):
    """Asks for a URL, and what would happen to it."""

    def __init__(self, admin: Admin) -> None:
        super().__init__()
        self.admin = admin

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Input(placeholder="http://www.example.org/logo.png", id="url")
            with VerticalScroll():
                yield Static("Which URL?  Enter asks, Esc goes back.", id="text", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        url = event.value.strip()
        if url:
            self.say("asking ...")
            self.run_worker(lambda: self._ask(url), thread=True, exclusive=True)

    def _ask(self, url: str) -> None:
        try:
            text = explained(self.admin.get("/explain", url=url))
        except (Down, Refused) as problem:
            text = Text(f"✖ {problem}", style="bold red")
        self.app.call_from_thread(self.say, text)


def explained(answer: Mapping[str, Any]) -> Text:
    """What the director says of a URL."""
    text, is_tcp = Text(), answer.get("rule_in") == "tcp"
    rows = [
        ("goes", answer.get("goes")),
        ("why", answer.get("why")),
        ("rule", answer.get("rule")),
        ("pool", answer.get("pool")),
        ("by", answer.get("scheduler")),
        ("group", answer.get("affinity")),
        ("template", answer.get("template")),
        ("owner", answer.get("owner") or "none"),
        ("held by", "" if is_tcp else ", ".join(map(str, listed(answer, "holders"))) or "no node, as far as is known"),
        ("key", answer.get("key")),
        ("refused", f"{answer.get('status') or ''} {answer['reason']}".strip() if answer.get("reason") else ""),
    ]
    for name, value in rows:
        if value:
            text.append(f"{name:9}", style="bold").append(clean(str(value)) + "\n")
    nodes = [node for node in listed(answer, "nodes") if isinstance(node, Mapping)]
    for node in sorted(nodes, key=lambda node: node.get("place") or len(nodes) + 1)[:8]:
        tried = f"asked as number {node['tried']}" if node.get("tried") else "not asked"
        line = f"{node.get('place', '?'):>8} {clean(str(node.get('name', '?')))}: {node.get('state', '?')}, {tried}\n"
        text.append(line, style="" if node.get("tried") else "dim")
    return text


def clean_lines(text: str) -> str:
    """Without what a terminal would obey, but with its lines."""
    return "\n".join(clean(line) for line in text.split("\n"))

"""The live screen of cachelb-stats with a made-up director behind it, for tests that press keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from cachelb.tools.stats.client import Admin
from cachelb.tools.stats.poll import Poller
from cachelb.tools.stats.watch import Watch
from fakes_stats import FakeAdmin, well
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

PATIENCE_S = 20.0


class Screen:
    """What a test looks at."""

    def __init__(self, app: Watch, pilot: Pilot[None], fake: FakeAdmin) -> None:
        self.app, self.pilot, self.fake = app, pilot, fake

    def part(self, name: str) -> str:
        return str(self.app.screen_stack[0].query_one(f"#{name}", Static).content)

    @property
    def rows(self) -> list[str]:
        return [str(option.prompt) for option in self.app.screen_stack[0].query_one("#nodes", OptionList).options]

    @property
    def window(self) -> str:
        return str(self.app.screen.query_one("#text", Static).content)

    @property
    def puts(self) -> list[tuple[str, Any]]:
        return [(path, json.loads(body)) for method, path, _, body in self.fake.asked if method == "PUT"]

    async def until(self, is_true: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_true():
                await self.pilot.pause(0.01)


def watching(
    test: Callable[[Screen], Awaitable[None]], token: str = "", size: tuple[int, int] = (80, 40), **answers: Any
) -> None:
    async def main() -> None:
        with FakeAdmin(well(**answers)) as fake:
            app = Watch(Poller(Admin(fake.where, token, 0.5), asyncio.get_running_loop().time), 0.05)
            async with app.run_test(size=size) as pilot:
                screen = Screen(app, pilot, fake)
                await screen.until(lambda: app.farm is not None or app.poller.problem)
                await test(screen)

    asyncio.run(main())

"""The relay's clock: what is done at each tick, and that an error in one of them is none of the next."""

from __future__ import annotations

import asyncio

import pytest

from cachelb.relay import ticker
from cachelb.relay.engine import Engine


def test_an_error_is_logged_and_the_clock_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(ticker, "TICK_S", 0.001)

    async def run() -> None:
        engine = Engine(asyncio.get_running_loop())
        calls: list[float] = []
        enough = asyncio.Event()

        def broken(now: float) -> None:
            calls.append(now)
            if len(calls) == 3:
                enough.set()
            raise RuntimeError("a bug of ours")

        engine.door.sweep = broken  # type: ignore[method-assign]
        engine.ticker.start()
        await enough.wait()
        engine.ticker.stop()
        assert calls == sorted(calls)
        assert engine.now == calls[-1]
        engine.poller.close()

    asyncio.run(run())
    assert "a bug of ours" in caplog.text

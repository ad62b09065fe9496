"""Which URLs are hot: samples of the exchanges that were completed, for the supervisor.

One in so many is looked at, chosen by chance, and stands for as many; the relay compares two integers for that.  How many follows
from the traffic, so that a busy worker looks at about 200 a second and a quiet one at everything.  A long answer is always looked
at and stands for itself: a few of them can be most of the bytes.

Left out: which are the hottest (``cachelb/admin/hot.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cachelb.control import BYPASSED, HIT, MARKED, NO_SLOT, Sample
from cachelb.relay.sightings import HASHED

if TYPE_CHECKING:
    from cachelb.relay.exchange import Exchange

SAMPLES_PER_TICK = 40  # wanted; a tick is 0.2 s
SAMPLES_MAX = 200  # in a tick, of all kinds
LONG_BYTES: Final = 1 << 20
URL_BYTES = 2048  # of longer ones nothing is remembered


class HotSamples:
    """The samples of one relay since the last tick.

    at: the number of completed exchanges at which the next one is looked at.  tell: is told of the samples; None: nobody.
    """

    __slots__ = ("_done", "_random", "_step", "at", "samples", "tell")

    def __init__(self, done: int) -> None:
        self.tell: Callable[[list[Sample]], None] | None = None
        self._step = 1
        self._done = done
        self._random = 1
        self.at = 0
        self.samples: list[Sample] = []

    def take(self, exchange: Exchange, done: int) -> None:
        """Look at an exchange that is complete, the ``done``-th."""
        weight = 1 if exchange.bytes_out >= LONG_BYTES else self._step
        if done >= self.at:
            # Between 1 and 2 * step - 1, evenly: traffic that repeats itself must not meet the same step again and again.
            self._random = (self._random * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
            self.at = done + 1 + (self._random >> 33) % (2 * self._step - 1)
        url = exchange.line.key
        if len(self.samples) >= SAMPLES_MAX or not url or len(url) > URL_BYTES:
            return
        target = exchange.target
        slot = target.slot if target is not None and target.is_node else NO_SLOT
        flags = 0 if exchange.why in HASHED else BYPASSED
        if exchange.hit is not None:
            flags |= MARKED | HIT if exchange.hit else MARKED
        self.samples.append(Sample(slot, flags, weight, exchange.bytes_out, url))

    def tick(self, done: int) -> None:
        """Tell what was sampled, and choose how many to pass over from now on."""
        self._step = max(1, (done - self._done) // SAMPLES_PER_TICK)
        self._done = done
        if self.at > done + 2 * self._step:
            self.at = done + 1  # the traffic has become less
        if self.samples:
            samples, self.samples = self.samples, []
            if self.tell is not None:
                self.tell(samples)

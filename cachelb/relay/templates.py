"""What a worker knows of the clients' templates: for whom it may decide by itself, and when it has to ask.

The supervisor keeps the templates and decides, once for all workers.  A worker remembers what it was told, asks for what it does
not know (all questions of one turn of the event loop in one message), and tells which templates are in use: each every few
seconds, also those whose clients are only connected.  What it remembers is good for less than the group's timeout after it has
last told that it is in use, so that nothing is followed that the supervisor has let expire.

If the supervisor does not answer within ANSWER_S, the worker decides by itself for a while: a client may then visit two nodes,
but is served.

Left out: the templates (``cachelb/affinity``), schedulers (steer.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from cachelb.control import NO_SLOT, Find, Found, Used
from cachelb.routing.rules import HASHED
from cachelb.routing.template import Group, group_of, is_home_again, keepers, packed

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.relay.steer import Steering
    from cachelb.relay.upstream import Target
    from cachelb.routing.pool import Pool

    Targets = tuple[Target, ...]

ANSWER_S: Final = 1.0  # for the supervisor: it answers within milliseconds, or hangs
ALONE_S: Final = 5.0  # how long what the worker has decided by itself is good
REPORT_S: Final = 5.0  # between two words about one template
ENTRIES_MAX: Final = 65_536  # addresses that a worker remembers in each group, beside those that are connected: 30 MiB
ASKED_MAX: Final = 20_000  # questions under way; beyond that the supervisor hangs
PROPOSED: Final = HASHED - {""} | {"client"}  # schedulers whose choice the worker finds


class Entry:
    """What is known of one masked address of a group.

    address: of one of its clients; slot, home: as the supervisor says, NO_SLOT: nothing.  until: how long that is good.
    report_at: when its use is worth telling again; holds: connections of its clients.
    pool, targets: whom to ask, in order, for as long as that pool is in force.
    waiting: who waits for an answer.
    """

    __slots__ = ("address", "alone", "group", "holds", "home", "pool", "report_at", "slot", "targets", "until", "waiting")

    def __init__(self, group: Clients, address: bytes) -> None:
        self.group = group
        self.address = address
        self.slot = self.home = NO_SLOT
        self.until = self.report_at = 0.0
        self.alone = False  # the worker has decided
        self.holds = 0
        self.pool: Pool[Target] | None = None
        self.targets: Targets = ()
        self.waiting: list[Waiter] = []

    def forget(self) -> None:
        """It has changed: ask."""
        self.pool = None
        self.slot = self.home = NO_SLOT


class Waiter(NamedTuple):
    """Who waits for a template."""

    pool: str
    scheduler: str
    algorithm: str
    key: bytes
    done: Callable[[tuple[Target, ...]], None]


class Clients:
    """The clients of one group."""

    __slots__ = ("by_address", "by_key", "group", "report_s", "valid_s")

    def __init__(self, group: Group) -> None:
        self.by_address: dict[str, Entry] = {}
        self.by_key: dict[int, Entry] = {}
        self.configure(group)

    def configure(self, group: Group) -> None:
        """The same clients, by other rules."""
        self.group = group
        self.report_s = min(REPORT_S, group.timeout_s / 4)
        # Its last word may have been on the way for a tick and more, and the supervisor sweeps once a second.
        self.valid_s = max(group.timeout_s / 2, group.timeout_s - 1.0)

    def entry(self, ip: str) -> Entry:
        """What is known of a client; a new one if that is nothing."""
        address = packed(ip)
        key = self.group.key(address)
        entry = self.by_key.get(key)
        if entry is None:
            if len(self.by_key) >= ENTRIES_MAX:
                self._make_room()
            entry = self.by_key[key] = Entry(self, address)
        if len(self.by_address) >= ENTRIES_MAX:
            self.by_address.clear()  # each is found again by its key
        self.by_address[ip] = entry
        return entry

    def forget(self) -> None:
        """All have changed."""
        for entry in self.by_key.values():
            entry.forget()

    def _make_room(self) -> None:
        """Forget the first eighth of what nobody is connected for."""
        for key, entry in list(self.by_key.items())[: ENTRIES_MAX // 8]:
            if not entry.holds and not entry.waiting:
                del self.by_key[key]
        self.by_address.clear()


class Templates:
    """The templates that one relay knows of.

    ask, tell: give the supervisor questions, and what is in use; False: that cannot be done now.  None: there is no supervisor.
    """

    def __init__(self, steering: Steering) -> None:
        self.steering = steering
        self.engine = steering.engine
        self.ask: Callable[[list[Find]], bool] | None = None
        self.tell: Callable[[list[Used]], bool] | None = None
        self.groups: dict[str, Clients] = {}
        self._keepers: dict[tuple[str, bool], dict[int, int]] = {}
        self._numbers = 0
        self._asked: dict[int, tuple[float, Entry]] = {}  # the oldest first
        self._questions: list[Find] = []
        self._used: list[Entry] = []
        self._held: dict[Entry, None] = {}
        self._look_at = 0.0

    def configure(self, config: Config) -> None:
        """A Snapshot has come: its groups and pools."""
        self._keepers.clear()
        before, self.groups = self.groups, {}
        for section in config.affinity:
            group = group_of(section)
            clients = before.get(group.name)
            if clients is None or not clients.group.has_clients_of(group):
                clients = Clients(group)
            elif clients.group != group:
                clients.configure(group)
                clients.forget()
            self.groups[group.name] = clients
        for name, clients in before.items():
            if self.groups.get(name) is not clients:
                clients.forget()  # nothing of it is told any more

    # -- who goes where

    def known(self, group: str, ip: str, pool: Pool[Target]) -> Targets | None:
        """Whom to ask for a client, its own node first; None: that is not known, see ``find``."""
        clients = self.groups[group]
        entry = clients.by_address.get(ip)
        if entry is None:
            return None
        now = self.engine.now
        if entry.pool is not pool or now >= entry.until:
            return None
        if now >= entry.report_at:
            self._use(entry, now)
        return entry.targets

    def find(
        self,
        group: str,
        ip: str,
        pool: Pool[Target],
        scheduler: str,
        done: Callable[[Targets], None],
        algorithm: str = "",
        key: bytes = b"",
    ) -> Targets | None:
        """As ``known``; where that is not known, ``done`` is given it later, after ANSWER_S at the latest.

        No targets: no node of the pool is in service.

        Args:
            scheduler: Of a client that has no template; algorithm, key: for one that hashes, as of ``Steering.choose``.
        """
        clients = self.groups[group]
        entry = clients.by_address.get(ip) or clients.entry(ip)
        now = self.engine.now
        if entry.slot != NO_SLOT and now < entry.until and self._holds(entry, pool):
            self._lead(entry, pool, scheduler, algorithm, key)
            if now >= entry.report_at:
                self._use(entry, now)
            return entry.targets
        waiter = Waiter(pool.name, scheduler, algorithm, key, done)
        if entry.waiting:
            entry.waiting.append(waiter)
            return None
        if self.ask is None or len(self._asked) >= ASKED_MAX:
            return self._alone(entry, waiter)
        proposed = entry.slot if entry.alone else NO_SLOT
        if scheduler in PROPOSED:
            targets = self.steering.choose(pool, scheduler, algorithm, key)
            proposed = targets[0].slot if targets else NO_SLOT
        entry.waiting.append(waiter)
        self._numbers = number = (self._numbers + 1) & 0xFFFFFFFF
        self._asked[number] = now, entry
        if not self._questions:
            self.engine.loop.call_soon(self._ask)
        self._questions.append(Find(number, proposed, group, pool.name, scheduler, entry.address))
        return None

    def _holds(self, entry: Entry, pool: Pool[Target]) -> bool:
        """Whether a client still goes to its node."""
        group = entry.group.group
        places = self._keepers.get((pool.name, group.expires_on_drain))
        if places is None:
            places = keepers(pool, _slot, group.expires_on_drain)
            self._keepers[pool.name, group.expires_on_drain] = places
        home = places.get(entry.home)
        if home is not None and is_home_again(group.key(entry.address), pool.admits[home]):
            return False
        return entry.slot in places

    def _lead(self, entry: Entry, pool: Pool[Target], scheduler: str, algorithm: str, key: bytes) -> None:
        """Work out whom to ask: its node, then others, for it may have died just now."""
        own = [target for target in pool.targets if target.slot == entry.slot]
        # whose turn it is must not depend on how often this is worked out
        others = self.steering.choose(pool, "wlc" if scheduler in ("rr", "wrr") else scheduler, algorithm, key)
        entry.targets = (*own, *(target for target in others if target not in own))[: max(1, len(others))]
        entry.pool = pool

    def _use(self, entry: Entry, now: float) -> None:
        entry.report_at = now + entry.group.report_s
        if not entry.alone:
            entry.until = now + entry.group.valid_s
            self._used.append(entry)

    def _alone(self, entry: Entry, waiter: Waiter) -> Targets:
        """Decide without the supervisor: as before, if the worker has done so before."""
        pool = self.engine.fleet.pools.get(waiter.pool)
        if pool is None:
            return ()
        self.engine.count("affinity_alone")
        if not (entry.alone and self._holds(entry, pool)):
            targets = self.steering.choose(pool, waiter.scheduler, waiter.algorithm, waiter.key)
            entry.slot = targets[0].slot if targets else NO_SLOT
            entry.home = NO_SLOT
        entry.alone = True
        entry.until = self.engine.now + ALONE_S
        entry.report_at = entry.until
        self._lead(entry, pool, waiter.scheduler, waiter.algorithm, waiter.key)
        return entry.targets

    # -- connections

    def hold(self, group: str, ip: str) -> Entry:
        """A connection of a client begins: its template does not expire before ``release``."""
        clients = self.groups[group]
        entry = clients.by_address.get(ip) or clients.entry(ip)
        entry.holds += 1
        self._held[entry] = None
        return entry

    def release(self, entry: Entry) -> None:
        """A connection that was held for has ended."""
        entry.holds -= 1
        if not entry.holds:
            self._held.pop(entry, None)
            if entry.slot != NO_SLOT:
                self._use(entry, self.engine.now)  # from now on it is idle

    # -- the supervisor

    def _ask(self) -> None:
        questions, self._questions = self._questions, []
        assert self.ask is not None
        if not self.ask(questions):
            for find in questions:
                self._no_answer(find.number)

    def found(self, answers: Sequence[Found]) -> None:
        """What the supervisor has answered."""
        now = self.engine.now
        for number, slot, home in answers:
            _, entry = self._asked.pop(number, (0.0, None))
            if entry is None:
                continue  # too late
            entry.slot, entry.home, entry.alone = slot, home, False
            entry.report_at, entry.until = now + entry.group.report_s, now + entry.group.valid_s
            waiting, entry.waiting = entry.waiting, []
            for waiter in waiting:
                self._answer(entry, waiter)

    def _answer(self, entry: Entry, waiter: Waiter) -> None:
        pool = self.engine.fleet.pools.get(waiter.pool)  # that of now: a Snapshot may have come
        targets: Targets = ()
        if pool is not None and entry.slot != NO_SLOT:
            if self._holds(entry, pool):
                self._lead(entry, pool, waiter.scheduler, waiter.algorithm, waiter.key)
                targets = entry.targets
            else:  # two rules with one group and different pools, or it has died since
                targets = self.steering.choose(pool, waiter.scheduler, waiter.algorithm, waiter.key)
        try:
            waiter.done(targets)
        except Exception as exc:  # ours: the others wait for their answers, too
            self.engine.crashed(exc)

    def _no_answer(self, number: int) -> None:
        _, entry = self._asked.pop(number)
        waiting, entry.waiting = entry.waiting, []
        for waiter in waiting:
            targets = self._alone(entry, waiter)
            try:
                waiter.done(targets)
            except Exception as exc:
                self.engine.crashed(exc)

    def forget(self, used: Sequence[Used]) -> None:
        """Templates that have changed, or are gone; see ``control.Used``."""
        for slot, name, address in used:
            clients = self.groups.get(name)
            if clients is None:
                continue
            if address:
                entry = clients.by_key.get(clients.group.key(address))
                if entry is not None:
                    entry.forget()
                continue
            for entry in clients.by_key.values():
                if slot in (NO_SLOT, entry.slot):
                    entry.forget()

    def tick(self, now: float) -> None:
        """Tell what is in use, and wait no longer for what was not answered."""
        while self._asked and now - next(iter(self._asked.values()))[0] >= ANSWER_S:
            self._no_answer(next(iter(self._asked)))
        if now >= self._look_at:
            self._look_at = now + min((clients.report_s for clients in self.groups.values()), default=REPORT_S)
            for entry in self._held:
                if entry.slot != NO_SLOT and now >= entry.report_at:
                    self._use(entry, now)
        if self._used:
            used, self._used = self._used, []
            if self.tell is not None:
                self.tell([Used(entry.slot, entry.group.group.name, entry.address) for entry in used if entry.slot != NO_SLOT])


def _slot(target: Target) -> int:
    return target.slot

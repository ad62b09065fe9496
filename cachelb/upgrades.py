"""What a running director does to be replaced by a new version of itself: SIGUSR2.

It gives the new one what it asks for, and waits until that one is ready.  Then, in this order: systemd is told who is the
director, the new one begins, this one finishes what it has begun and ends.  If anything goes wrong before that, the new one is
ended, the operator is told, and this one goes on as if nothing had been.

Left out: the conversation (``takeover``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING

from cachelb.affinity.journal import Journal
from cachelb.takeover import Offer, Predecessor, Successor, TakeoverError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from pathlib import Path

    from cachelb.supervisor import Supervisor

log = logging.getLogger("cachelb")


class Upgrades:
    """Of one director.

    tries: so far, refused ones included.  problem: why the last one failed; "" when none did, or while it is under way.
    successor: the new director, once it is one.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.tries = 0
        self.problem = ""
        self.successor: Successor | None = None
        self._next: Successor | None = None  # that is being started, or has begun
        self._trying: asyncio.Task[None] | None = None
        self._reload = False  # was asked for meanwhile: the new one may have read the configuration before

    def begin(self) -> None:
        """Start the new version, unless that cannot be done now."""
        if self.pass_on(signal.SIGUSR2):
            return
        if self._trying is not None and not self._trying.done():
            log.warning("upgrade: one is under way")
            return
        self.tries += 1
        self.problem = self._refusal()
        if self.problem:
            log.error("upgrade refused: %s", self.problem)
        else:
            self._reload = False
            self._trying = asyncio.create_task(self._try())

    def _refusal(self) -> str:
        if os.getpid() == 1:
            return "this is process 1, whose end ends all others of its container: start a new container instead"
        state = self.supervisor.state
        return "" if state == "running" else f"the director is {state}"

    async def _try(self) -> None:
        supervisor = self.supervisor
        config = supervisor.config
        successor = None
        log.info("upgrade: starting the new version")
        try:
            async with asyncio.timeout(config.service.upgrade_s):
                successor = self._next = await Successor.start(self._offer())
                successor.heard = self._hear
                await successor.until_ready(self._save)
        except asyncio.CancelledError:
            if successor is not None:
                await successor.end(config.timeouts.drain_s)
            raise
        except TimeoutError:
            self.problem = f"the new one was not ready within [service] upgrade_s = {config.service.upgrade_s:g} s"
        except TakeoverError as exc:
            self.problem = str(exc)
        except Exception as exc:  # ours: an upgrade must not cost a director
            log.critical("internal error: %r", exc, exc_info=exc)
            self.problem = repr(exc)
        else:
            await self._hand_over(successor)
            return
        log.error("upgrade failed: %s; this one goes on", self.problem)
        if successor is not None:
            await successor.end(config.timeouts.drain_s)
        self._next = supervisor.affinity.journal = None
        supervisor.template_keeper.take_back()
        await supervisor.onecache.take_back()

    async def _save(self) -> Path | None:
        """Save what is known; where, if that is not the state directory.  From now on the new one is told of templates."""
        assert self._next is not None
        self.supervisor.affinity.journal = Journal(self._next.tell, self._next.unread).note
        directory = await self.supervisor.onecache.hand_over()
        await self.supervisor.template_keeper.hand_over(directory)
        return directory

    def _offer(self) -> Offer:
        supervisor = self.supervisor
        assert supervisor.workers is not None
        listeners = (sock for worker in supervisor.workers.workers for sock in worker.listeners)
        digest = supervisor.workers.digest
        return Offer(
            sockets=_each_once((*listeners, *supervisor.admin.sockets, *supervisor.onecache.sockets)),
            pid_file=-1 if supervisor.pid_file is None else supervisor.pid_file.fd,
            lock=supervisor.onecache.keeper.lock,
            host=-1 if supervisor.host is None else supervisor.host.claim.fd,
            digest=None if digest is None else list(digest),
            addresses={name: list(addresses) for name, addresses in supervisor.farm.addresses.items()},
            operator=supervisor.overrides.told(),
            dead={name: known.cause for name, known in supervisor.health.states().items() if known.state == "dead"},
        )

    def _hear(self, payload: bytes) -> None:
        """What the new one tells of templates: it decides when it is the director."""
        self.supervisor.affinity.adopt(payload, overrule=self.successor is not None)

    async def follow(self, before: Predecessor) -> None:
        """This process is to replace another one: hear what that one says of templates, and tell it what is decided here."""
        affinity = self.supervisor.affinity
        journal = affinity.journal = Journal(before.tell, before.unread).note

        def gone() -> None:
            if affinity.journal is journal:
                affinity.journal = None

        for payload in before.early:
            affinity.adopt(payload, overrule=True)
        before.heard = lambda payload: affinity.adopt(payload, overrule=self.supervisor.before is not None)
        before.gone = gone
        await before.listen()

    async def _hand_over(self, successor: Successor) -> None:
        supervisor = self.supervisor
        supervisor.notifier.main_pid(successor.pid)  # before that one says anything: systemd believes the main process only
        if supervisor.pid_file is not None:
            supervisor.pid_file.leave()
            supervisor.pid_file = None
        supervisor.admin.leave()
        self.successor = successor
        await successor.go()
        if self._reload:
            self.pass_on(signal.SIGHUP)
        log.info("upgrade: process %d is the director now; this one finishes what it has begun", successor.pid)
        supervisor.ending.set()

    def pass_on(self, number: signal.Signals) -> bool:
        """Give a signal to the new director; False when there is none yet."""
        if self.successor is not None:
            self.successor.signal(number)
            return True
        self._reload = self._reload or number == signal.SIGHUP
        return False

    def give_up(self) -> None:
        """The director ends: if a new one is being started, it ends, too."""
        if self._trying is not None:
            self._trying.cancel()

    async def settled(self) -> None:
        """Return when nothing of it runs any more."""
        if self._trying is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._trying
        if self.successor is not None:
            self.successor.close()


def _each_once(sockets: Iterable[socket.socket]) -> list[int]:
    """Descriptors of all sockets; one for those that workers share."""
    return list({os.fstat(sock.fileno()).st_ino: sock.fileno() for sock in sockets}.values())

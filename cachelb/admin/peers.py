"""Whether the other directors route as this one does.

Directors with the same configuration send the same URL to the same node without ever talking to each other, for the ring follows
names and weights alone.  So all that has to be watched is that they have the same: each asks the others every few seconds for
digests of what their routing depends on, section by section, as it is in force (what an operator has set on a node included).
What may differ from host to host does not count.

The list of directors may have this one, too, so that all can have the same file.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.supervisor import Supervisor

log = logging.getLogger("cachelb.peers")

ANSWER_BYTES = 65536  # an answer has some 2 KB
TIMEOUT_S = 1.5  # for an answer; with [peers] interval_s a difference is known within 5 s

# What belongs to a host, or to its size; all else has to be the same.
OF_A_HOST = frozenset(("listen", "admin", "limits", "index", "resolver", "hostnet", "log", "service", "peers"))
KEYS_OF_A_HOST = {"relay": ("workers", "via"), "intercept": ("listen", "interfaces")}


class Peer(NamedTuple):
    """One other director, when it was asked last.

    is_self: it is this one.  agrees: whether it routes alike; None: that is not known, and ``problem`` says why.
    differs: the sections that are not the same.
    """

    is_self: bool = False
    agrees: bool | None = None
    differs: tuple[str, ...] = ()
    problem: str = "it has not been asked yet"


def digests(config: Config) -> dict[str, str]:
    """A digest of each section that has to be the same everywhere."""
    found = {}
    for name, values in config.model_dump(mode="json").items():
        if name in OF_A_HOST:
            continue
        if isinstance(values, dict):
            values = {key: value for key, value in values.items() if key not in KEYS_OF_A_HOST.get(name, ())}
        elif name == "node" and config.hash.algorithm == "ring":
            values = sorted(values, key=lambda item: str(item["name"]))  # the order of nodes moves no key
        found[name] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
    return found


class Peers:
    """All of them."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.id = secrets.token_hex(8)
        self.known: dict[str, Peer] = {}
        self._digests: tuple[Config, dict[str, str]] | None = None

    def own(self) -> dict[str, Any]:
        """What this one tells who asks: ``model.Shared``."""
        config = self.supervisor.config
        if self._digests is None or self._digests[0] is not config:
            self._digests = config, digests(config)
        return {"id": self.id, "sections": self._digests[1]}

    def status(self) -> list[dict[str, Any]]:
        """``model.Peer`` of each."""
        return [
            {"url": url, "agrees": peer.agrees, "differs": list(peer.differs), "problem": peer.problem}
            for url, peer in self.known.items()
            if not peer.is_self
        ]

    async def watch(self) -> None:
        """Ask them again and again."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), trust_env=False) as session:
            while True:
                config = self.supervisor.config.peers
                found = await asyncio.gather(*(self._ask(session, url) for url in config.directors))
                before, self.known = self.known, dict(zip(config.directors, found, strict=True))
                for url, peer in self.known.items():
                    if peer != before.get(url, Peer()) and not peer.is_self:
                        self._tell(url, peer, before.get(url))
                await asyncio.sleep(config.interval_s)

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> Peer:
        token = self.supervisor.admin.token
        fields = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with session.get(f"{url}/api/v1/shared", headers=fields, allow_redirects=False) as answer:
                data = await answer.content.read(ANSWER_BYTES)
                if answer.status != 200:
                    return Peer(problem=f"it answers {answer.status}: {_detail(data)}")
            theirs = json.loads(data)
            return self._compared(theirs["id"], dict(theirs["sections"]))
        except TimeoutError:
            return Peer(problem=f"no answer within {TIMEOUT_S:g} s")
        except aiohttp.ClientError as exc:
            return Peer(problem=str(exc) or type(exc).__name__)
        except (ValueError, KeyError, TypeError, RecursionError):
            return Peer(problem="its answer cannot be understood: another version, or no director")

    def _compared(self, identity: object, theirs: dict[str, Any]) -> Peer:
        ours = self.own()["sections"]
        names = [*ours, *(str(name)[:32] for name in theirs if name not in ours)]
        differs = tuple(name for name in names if ours.get(name) != theirs.get(name))[: len(ours) + 8]
        return Peer(identity == self.id, not differs, differs, "")

    def _tell(self, url: str, peer: Peer, before: Peer | None) -> None:
        events = self.supervisor.desk.events
        if peer.agrees is False:
            text = f"the director {url} routes otherwise: it differs in {', '.join(f'[{name}]' for name in peer.differs)}"
            log.error("%s", text)
            events.add("peer", text, "error", url=url, differs=list(peer.differs))
        elif peer.agrees:
            text = f"the director {url} routes as this one does"
            log.info("%s", text)
            events.add("peer", text, url=url)
        elif before is None or before.agrees is not None or before == Peer():
            text = f"the director {url} cannot be asked: {peer.problem}"
            log.warning("%s", text)
            events.add("peer", text, "warning", url=url)


def _detail(data: bytes) -> str:
    try:
        return str(json.loads(data)["detail"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "no director"

"""Names to addresses: literals, /etc/hosts, then DNS; cached by TTL.  The only importer of aiodns.

``resolve`` asks for A and AAAA at the same time.  When one family has answered, the other gets ``SECOND_FAMILY_S`` more
(RFC 8305 section 3); a later answer still reaches the cache, and a family that fails does not fail the other.  Lookups
of one name at the same time share one.  Names are absolute: search domains are not tried, as in Squid.

Works on any event loop: c-ares runs in a thread of its own and calls back into the loop.  Nothing is opened before
the first query, so that a Resolver may be made before a fork.

Left out: connecting (``relay.race``), which addresses clients may reach (the relay's guard), re-resolution (``watch``).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import aiodns
import pycares

from cachelb.errors import CachelbError
from cachelb.nodes.names import HOSTS_PATH, Hosts, canonical_name, interleave, literal, plain_address

SECOND_FAMILY_S = 0.05  # RFC 8305 section 8: "recommended to be 50 milliseconds"
FAILURE_TTL_S = 1.0  # how long servers that fail or are silent are left alone; RFC 9520 section 3.2: at least 1 s
NAMES_LIMIT = 10_000  # cached names; the oldest go first.  Squid's ipcache_size is 1,024 with far fewer threads
LOOKUPS_LIMIT = 1_000  # at the same time: more are an attack, or a DNS that has stopped answering
TRIES = 3  # per server, each with a longer timeout
# c-ares has a cache of its own, which aiodns cannot bound or switch off: 1.2 KB for each name and family (measured
# 2026-11), "there is none" up to an hour, and for a family that a name lacks always an hour, whatever the SOA record
# says (c-ares issue 1293, open in 2026-11).  A new channel (0.1 ms) has an empty one, but has also forgotten which
# servers are down, so that it is only made for a reason: this many lookups, this old, or a name that was missing.
CHANNEL_LOOKUPS = 10_000
CHANNEL_AGE_S = 300.0

Kind = Literal["nxdomain", "timeout", "failure"]


class ResolveError(CachelbError):
    """The name has no usable address.

    kind: nxdomain = there is none (also: the name is malformed), timeout = nobody answered in time, failure = the rest.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind: Kind = kind


class _Answer(NamedTuple):
    """What one family said.  error: None for success; a family without addresses is "nodata"."""

    addresses: tuple[str, ...]
    ttl_s: float
    error: Literal["nodata"] | Kind | None = None


class _Entry(NamedTuple):
    addresses: list[str]
    expires: float
    error: ResolveError | None = None


class Resolver:
    """One per process.  nameservers: "address" or "address:port"; empty: those of /etc/resolv.conf.

    ttl_min_s and ttl_max_s bound the TTLs of answers, negative_ttl_s is how long "there is none" is believed,
    timeout_s bounds one lookup, with all tries.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        ttl_min_s: float = 1.0,
        ttl_max_s: float = 3600.0,
        negative_ttl_s: float = 10.0,
        timeout_s: float = 5.0,
        *,
        hosts_path: Path = HOSTS_PATH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queries = 0  # lookups that went to DNS
        self._nameservers = tuple(nameservers)
        self._ttl_min_s = ttl_min_s
        self._ttl_max_s = ttl_max_s
        self._negative_ttl_s = negative_ttl_s
        self._timeout_s = timeout_s
        self._hosts = Hosts(hosts_path)
        self._clock = clock
        self._cache: OrderedDict[str, _Entry] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[_Entry]] = {}
        self._late: set[asyncio.Task[_Answer]] = set()
        self._dns: aiodns.DNSResolver | None = None
        self._dns_since = 0.0
        self._dns_lookups = 0

    def cached(self, host: str, now: float) -> list[str] | None:
        """The addresses of `host` if they can be told at once; None when ``resolve`` has to be asked."""
        entry = self._cache.get(host)
        if entry is not None and entry.expires > now and entry.error is None:
            return entry.addresses
        return literal(host)

    def expires(self, host: str) -> float | None:
        """When the cached answer for `host` ends, monotonic seconds; None when nothing is cached."""
        entry = self._cache.get(host) or self._cache.get(canonical_name(host) or "")
        return entry.expires if entry is not None else None

    async def resolve(self, host: str) -> list[str]:
        """The addresses of `host`, to be tried in this order: IPv6 and IPv4 in turn, never empty.

        Args:
            host: A name in any case, with or without the final dot, or an address, IPv6 with or without brackets.

        Raises:
            ResolveError: There is no address, or nobody told us.
        """
        if found := self.cached(host, self._clock()):
            return found
        name = canonical_name(host)
        if name is None:
            raise ResolveError("nxdomain", f"{host[:80]!r} is not a host name")
        entry = self._cache.get(name)
        if entry is None or entry.expires <= self._clock():
            if local := self._hosts.lookup(name):
                return local
            entry = await self._shared_lookup(name, was_missing=entry is not None and entry.error is not None)
        if entry.error is not None:
            # a new one: raising the cached object would make its traceback grow with every user
            raise ResolveError(entry.error.kind, str(entry.error))
        return entry.addresses

    def close(self) -> None:
        """Cancel what is under way and free the sockets and the thread.  The Resolver may be used again."""
        for task in (*self._lookups.values(), *self._late):
            task.cancel()
        self._lookups.clear()
        dns, self._dns = self._dns, None
        if dns is not None:
            dns.cancel()  # the channel itself closes with the last reference, which pending queries would keep

    async def _shared_lookup(self, name: str, was_missing: bool) -> _Entry:
        task = self._lookups.get(name)
        if task is None:
            if len(self._lookups) >= LOOKUPS_LIMIT:
                raise ResolveError("failure", f"more than {LOOKUPS_LIMIT} names are being looked up")
            self._renew_channel(was_missing)
            task = asyncio.ensure_future(self._lookup(name))
            self._lookups[name] = task
            task.add_done_callback(lambda task: self._looked_up(name, task))
        try:
            return await asyncio.shield(task)  # a client that goes away must not cancel the lookup for the others
        except asyncio.CancelledError:
            if task.cancelled():  # by close(), not by our own caller
                raise ResolveError("failure", "the resolver was closed") from None
            raise

    def _looked_up(self, name: str, task: asyncio.Task[_Entry]) -> None:
        if self._lookups.get(name) is task:
            del self._lookups[name]

    async def _lookup(self, name: str) -> _Entry:
        self.queries += 1
        v6 = asyncio.ensure_future(self._ask(name, "AAAA"))
        v4 = asyncio.ensure_future(self._ask(name, "A"))
        try:
            done, _ = await asyncio.wait((v6, v4), return_when=asyncio.FIRST_COMPLETED)
            grace_s = SECOND_FAMILY_S if any(task.result().addresses for task in done) else None
            _, late = await asyncio.wait((v6, v4), timeout=grace_s)
        except asyncio.CancelledError:
            v6.cancel()
            v4.cancel()
            raise
        for task in late:
            self._late.add(task)
            task.add_done_callback(lambda task: self._arrived_late(name, v6, v4, task))
        return self._store(name, v6, v4)

    def _arrived_late(self, name: str, v6: asyncio.Task[_Answer], v4: asyncio.Task[_Answer],
                      task: asyncio.Task[_Answer]) -> None:  # fmt: skip
        self._late.discard(task)
        if not task.cancelled() and task.result().addresses:
            self._store(name, v6, v4)

    def _store(self, name: str, v6: asyncio.Task[_Answer], v4: asyncio.Task[_Answer]) -> _Entry:
        answers = [task.result() for task in (v6, v4) if task.done()]
        entry = self._entry(name, answers, interleave(*(a.addresses for a in answers)))
        self._cache[name] = entry
        self._cache.move_to_end(name)
        if len(self._cache) > NAMES_LIMIT:
            self._cache.popitem(last=False)
        return entry

    def _entry(self, name: str, answers: Sequence[_Answer], addresses: list[str]) -> _Entry:
        now = self._clock()
        if addresses:
            ttl_s = min(answer.ttl_s for answer in answers if answer.addresses)
            return _Entry(addresses, now + min(max(ttl_s, self._ttl_min_s), self._ttl_max_s))
        errors = [answer.error for answer in answers]
        if "nxdomain" in errors:
            return _Entry([], now + self._negative_ttl_s, ResolveError("nxdomain", f"{name} does not exist"))
        if "timeout" in errors:
            return _Entry([], now + FAILURE_TTL_S, ResolveError("timeout", f"no DNS server answered for {name}"))
        if "failure" in errors:
            return _Entry([], now + FAILURE_TTL_S, ResolveError("failure", f"DNS servers failed for {name}"))
        return _Entry([], now + self._negative_ttl_s, ResolveError("nxdomain", f"{name} has no address"))

    async def _ask(self, name: str, family: Literal["A", "AAAA"]) -> _Answer:
        try:
            channel = self._channel()  # held until the answer is here, see _renew_channel
            async with asyncio.timeout(self._timeout_s):
                result = await channel.query_dns(name, family)
        except TimeoutError:
            return _Answer((), 0, "timeout")
        except (aiodns.error.DNSError, pycares.AresError) as exc:  # the latter: the channel could not be made
            return _Answer((), 0, _error(exc))
        # CNAMEs on the way count: an answer is as old as its oldest part
        ttl_s = min((record.ttl for record in result.answer), default=0)
        wanted = aiodns.query_type_map[family]
        found = [record.data.addr for record in result.answer if record.type == wanted]  # type: ignore[union-attr]
        return _Answer(tuple(map(plain_address, found)), ttl_s, None if found else "nodata")

    def _renew_channel(self, was_missing: bool) -> None:
        """Drop a channel whose cache is too large or would go on denying a name.  It lives until its queries end."""
        self._dns_lookups += 1
        age_s = self._clock() - self._dns_since
        limit_s = min(self._negative_ttl_s, CHANNEL_AGE_S) if was_missing else CHANNEL_AGE_S
        if age_s >= limit_s or self._dns_lookups > CHANNEL_LOOKUPS:
            self._dns = None

    def _channel(self) -> aiodns.DNSResolver:
        if self._dns is None:
            self._dns_since = self._clock()
            self._dns_lookups = 0
            # the first try may take a third of the time, so that one lost datagram is survived
            self._dns = aiodns.DNSResolver(
                self._nameservers or None, loop=asyncio.get_running_loop(), timeout=self._timeout_s / TRIES, tries=TRIES
            )
        return self._dns


def _error(exc: Exception) -> Literal["nodata"] | Kind:
    code = exc.args[0] if exc.args else 0
    if code in (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_EBADNAME):
        return "nxdomain"
    if code == aiodns.error.ARES_ENODATA:
        return "nodata"
    return "timeout" if code == aiodns.error.ARES_ETIMEOUT else "failure"

"""The Python relay: one event loop, raw sockets, every HTTP byte of one worker process.

Outside, four verbs (see ``base.Relay``): ``start``, ``apply``, ``counters``, ``drain``.  Inside, it owns what client
connections share: the plans' memos, the targets with their kept connections, the pipes, the counters and the clock.

Time is coarse on purpose: one tick every ``TICK_S`` sets ``now`` and looks for deadlines that have passed.  A pass over
20,000 connections costs about 1 ms; a timer object per request would cost more than that every second.
"""

from __future__ import annotations

import array
import asyncio
import ipaddress
import json
import logging
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cachelb.config import Config
from cachelb.config_rules import freeze
from cachelb.counters import BLOCK_BYTES, END_INDEX, FARM, FARM_INDEX, NODE_INDEX, node_offset
from cachelb.errors import Reason
from cachelb.http.head import Limits, RequestHead, scan_request
from cachelb.relay import pages
from cachelb.relay.client import Client
from cachelb.relay.memo import Memo
from cachelb.relay.origins import Origins
from cachelb.relay.pipes import Pipes
from cachelb.relay.plan import BlockPlan, LinePlan, Planner, PlanSettings
from cachelb.relay.poller import Poller
from cachelb.relay.reports import Reports
from cachelb.relay.upstream import Target
from cachelb.routing.classify import BypassRules, Policy
from cachelb.routing.learned import Learned, Lesson
from cachelb.routing.ports import PortSet
from cachelb.routing.ring import Member
from cachelb.routing.route import admission
from cachelb.routing.table import Table, make_table
from cachelb.snapshot import Snapshot

if TYPE_CHECKING:
    from cachelb.http.response import ResponseHead
    from cachelb.relay.exchange import Exchange

log = logging.getLogger("cachelb.relay")

TICK_S = 0.2
ACCEPTS = 64  # connections taken at one go, so that a burst does not keep answers waiting
MEMO_LINE_BYTES = 1024  # longer first lines and blocks are judged anew each time: the memos' memory is bounded by these
MEMO_BLOCK_BYTES = 2048
MEMO_BLOCKS = 4096
ACCESS_MEMO = 10_000


class Engine:
    """One worker's relay."""

    REQUESTS = FARM_INDEX["requests"]
    HASHED = FARM_INDEX["hashed"]
    HITS = FARM_INDEX["hits"]
    BYTES_OUT = FARM_INDEX["bytes_out"]

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        block: memoryview | None = None,
        teach: Callable[[list[Lesson]], None] | None = None,
    ) -> None:
        """Make a relay that serves nothing yet.

        Args:
            block: BLOCK_BYTES of shared memory for the counters, zeroed; private memory if there is none.
            teach: is told what this worker learned, for the others.
        """
        self.loop = loop
        self.poller = Poller(loop)
        self.block = (block if block is not None else memoryview(bytearray(BLOCK_BYTES))).cast("Q")
        self.teach = teach
        self.clock = time.monotonic
        self.now = self.clock()
        self.farm = list(self.block[: len(FARM)])  # a worker that is restarted counts on
        self.ends = END_INDEX
        self.pipes = Pipes()
        self.small_pipes = Pipes(most=1024, size=65536)
        self.lines: Memo[bytes, LinePlan[Target]] = Memo(1)
        self.host_lines: Memo[tuple[bytes, bytes], LinePlan[Target]] = Memo(1)
        self.blocks: Memo[bytes, BlockPlan] = Memo(MEMO_BLOCKS)
        self.learned = Learned()
        self.learning = True
        self.clients: set[Client] = set()
        self.per_client: dict[str, int] = {}
        self.allowed: dict[str, bool] = {}
        self.nodes: dict[str, Target] = {}
        self.in_service: tuple[Target, ...] = ()
        self.listeners: list[socket.socket] = []
        self.draining = False
        self.epoch = -1
        self.config: Config
        self.limits: Limits
        self.planner: Planner[Target]
        self.tails: list[bytes] = []
        self.via_line = b""
        self._settings = ""
        self._table: Table | None = None
        self._table_of: object = None
        self._turn = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._idle_event = asyncio.Event()
        self.access_log: Callable[[Exchange, Reason], None] | None = None
        self.reports = Reports(self)
        self.origins = Origins(self)

    # -- the four verbs

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept on ``listeners``; ``drain`` closes them.  A Snapshot must have been applied."""
        self.listeners = list(listeners)
        for listener in self.listeners:
            listener.setblocking(False)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
            self.poller.add_reader(listener.fileno(), partial(self._accept, listener))
        self._tick()

    def apply(self, blob: bytes) -> int:
        """Route later requests by the Snapshot in ``blob``; return its epoch.

        Raises:
            BadSnapshot: It cannot be read; the one in force stays.
        """
        snapshot = Snapshot.unpack(blob)
        if snapshot.settings != self._settings:
            self._configure(Config.model_validate(freeze(json.loads(snapshot.settings))))
            self._settings = snapshot.settings
        gone = self._place_nodes(snapshot)
        self.lines.clear()
        self.host_lines.clear()
        self.epoch = snapshot.epoch
        if gone:
            self._move_on(gone)
        return self.epoch

    def counters(self) -> memoryview:
        """The live block, in the order of ``cachelb.counters``."""
        self._flush_counters()
        return self.block

    async def drain(self, deadline_s: float) -> int:
        """Stop accepting, let exchanges finish; return how many were cut."""
        for listener in self.listeners:
            self._accept(listener)  # who is in the backlog was promised a connection
            self.poller.remove_reader(listener.fileno())
            listener.close()
        self.listeners = []
        self.draining = True
        for client in list(self.clients):
            if client.state == 0 and not client.inbuf and not client.begun:
                client.close()
        end = self.clock() + deadline_s
        while self.clients and self.clock() < end:
            self._idle_event.clear()
            try:
                await asyncio.wait_for(self._idle_event.wait(), min(0.5, max(0.01, end - self.clock())))
            except TimeoutError:
                pass
        cut = len(self.clients)
        for client in list(self.clients):
            client.cut()
        self._close_all()
        return cut

    # -- configuration

    def _configure(self, config: Config) -> None:
        self.config = config
        limits = config.limits
        self.timeouts = config.timeouts
        self.limits = Limits(limits.head_bytes, limits.url_bytes, limits.fields)
        self.most_clients = limits.connections
        self.most_per_client = limits.connections_per_client
        self.allow = config.access.allow
        self.allowed.clear()
        bypass = config.bypass
        self.learning = bypass.learn and bypass.mode != "off"
        rules = BypassRules(bypass.hosts, bypass.paths, bypass.headers)
        policy = Policy(PortSet.parse(config.access.connect_ports), PortSet.parse(config.access.safe_ports), rules)
        self.plan_settings = PlanSettings(
            policy, config.relay.via, config.relay.forwarded_for, config.relay.forwarded_for_hops, bypass.mode
        )
        via = f"Via: 1.1 {config.relay.via} (cachelb)\r\n".encode("latin-1")
        self.via_line = via
        coding = b"Transfer-Encoding: chunked\r\n"
        self.tails = [
            via + extra + end + b"\r\n"
            for end in (b"", b"Connection: keep-alive\r\n", b"Connection: close\r\n")
            for extra in (b"", coding)
        ]
        self.blocks.clear()
        self.lines = Memo(limits.memo_entries)
        self.host_lines = Memo(limits.memo_entries)
        self.learned = Learned(ttl_s=bypass.learn_ttl_s)
        self.origins.configure(config)
        self.reports.configure(config)

    def _place_nodes(self, snapshot: Snapshot) -> set[Target]:
        """Take over the nodes of ``snapshot``; return the targets that serve no more."""
        before = self.nodes
        nodes: dict[str, Target] = {}
        gone: set[Target] = set()
        hierarchy = "CARP"
        for view in snapshot.nodes:
            target = before.get(view.name)
            if target is None or target.slot != view.slot:
                target = Target(view.name, view.addresses, view.port, view.slot, hierarchy)
                start = node_offset(view.slot)
                target.counts = list(self.block[start : start + len(target.counts)])
            elif (target.addresses, target.port) != (view.addresses, view.port):
                target.addresses, target.port = view.addresses, view.port
                target.close_idle()
            if view.state == "dead" and target.state != "dead":
                gone.add(target)
                target.close_idle()
            target.state = view.state
            target.idle_max = self.config.limits.idle_per_node
            target.keep_s = self.timeouts.node_keep_alive_s
            nodes[view.name] = target
        for name, target in before.items():
            if nodes.get(name) is not target:
                gone.add(target)
                target.close_idle()
                target.idle_max = 0  # what is still in use is closed, not kept
        self.nodes = nodes
        members = [Member(view.name, view.weight) for view in snapshot.nodes]
        made_of = (self.config.hash.algorithm, tuple(members))
        if made_of != self._table_of:
            self._table = make_table(self.config.hash.algorithm, members) if members else None
            self._table_of = made_of
        targets = list(nodes.values())
        admits = [admission(view.state, view.share) for view in snapshot.nodes]  # type: ignore[arg-type]
        self.in_service = tuple(t for t, a in zip(targets, admits, strict=True) if a > 0) or tuple(
            t for t, a in zip(targets, admits, strict=True) if a < 0
        )
        self.planner = Planner(self.plan_settings, self._table, targets, admits)
        return gone

    def _move_on(self, gone: set[Target]) -> None:
        """Take exchanges that wait for a dead or removed node to its successor at once."""
        for client in list(self.clients):
            exchange = client.exchange
            if client.state == 1 and exchange.targets and exchange.attempt < len(exchange.targets):
                target = exchange.targets[exchange.attempt]
                if target in gone and target.state == "dead":
                    try:
                        exchange.target_died(self.planner.owners(exchange.line.key))
                    except Exception as exc:
                        client.crashed(exc)

    # -- clients

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                self.reports.limited("accept", f"cannot accept a connection: {exc}")
                return
            sock.setblocking(False)
            ip: str = address[0]
            if ip.startswith("::ffff:"):
                ip = ip[7:]
            self.farm[FARM_INDEX["clients"]] += 1
            count = self.per_client.get(ip, 0)
            if len(self.clients) >= self.most_clients or count >= self.most_per_client:
                self._turn_away(sock, ip, count)
                continue
            self.per_client[ip] = count + 1
            client = Client(self, sock, ip, not self._may_use(ip))
            self.clients.add(client)
            client.resume()

    def _turn_away(self, sock: socket.socket, ip: str, count: int) -> None:
        reason = Reason.OVERLOADED if count < self.most_per_client else Reason.TOO_MANY_CONNECTIONS
        self.farm[self.ends[reason]] += 1
        self.reports.limited(reason.label, f"client {ip} turned away: {reason.value.text}")
        try:
            sock.send(pages.error_page(reason, "", b"", self.reports.request_id(), self.planner.via_name))
        except OSError:
            pass
        sock.close()

    def _may_use(self, ip: str) -> bool:
        allowed = self.allowed.get(ip)
        if allowed is None:
            address = ipaddress.ip_address(ip.partition("%")[0])
            allowed = any(address in network for network in self.allow)
            if len(self.allowed) >= ACCESS_MEMO:
                self.allowed.clear()
            self.allowed[ip] = allowed
        return allowed

    def forget(self, client: Client) -> None:
        """A client connection is closed."""
        self.clients.discard(client)
        count = self.per_client.get(client.ip, 1) - 1
        if count:
            self.per_client[client.ip] = count
        else:
            self.per_client.pop(client.ip, None)
        if self.draining and not self.clients:
            self._idle_event.set()

    # -- requests

    def plan(self, data: bytes, seen: int = 0) -> tuple[LinePlan[Target], BlockPlan, int] | None:
        """Plans for the request at the start of ``data`` and the size of its head; None when it is not whole.

        Args:
            seen: How many bytes of ``data`` were there the last time, so that a head in crumbs is not read again and again.

        Raises:
            BadRequest: It is malformed, ambiguous or too large.
        """
        head = scan_request(data, self.limits, seen)
        if head is None:
            return None
        block = self.blocks.get(head.block)
        if block is None:
            block = self.planner.plan_block(head.block)
            if len(head.block) <= MEMO_BLOCK_BYTES:
                self.blocks.put(head.block, block)
        return self._plan_line(data, head, block.fields.host), block, head.size

    def _plan_line(self, data: bytes, head: RequestHead, host: bytes | None) -> LinePlan[Target]:
        origin_form = head.target.startswith(b"/")
        first = data[: data.find(b"\r\n")]
        known = self.host_lines.get((first, host or b"")) if origin_form else self.lines.get(first)
        if known is not None and first:
            return known
        line = self.planner.plan_line(head, host)
        if first and len(first) <= MEMO_LINE_BYTES:
            if origin_form:
                self.host_lines.put((first, host or b""), line)
            else:
                self.lines.put(first, line)
        return line

    def spread(self) -> tuple[Target, ...]:
        """Nodes for a request that is not hashed, in turn."""
        nodes = self.in_service
        if not nodes:
            return ()
        self._turn = (self._turn + 1) % len(nodes)
        return (nodes[self._turn :] + nodes[: self._turn])[:3]

    def find_origin(self, exchange: Exchange, host: bytes, port: int) -> None:
        """Find out where ``host`` is and whether it may be asked; the exchange is told."""
        self.origins.find(exchange, host, port)

    def observe(self, exchange: Exchange, head: ResponseHead) -> None:
        """Learn from an answer what the next request for its URL, or for its neighbours, should do."""
        line = exchange.line
        if not self.learning or not line.segment or line.method not in (b"GET", b"HEAD"):
            return
        fields = exchange.block.fields
        if fields.authorization or fields.no_store:
            return
        lessons = self.learned.observe(line.key, line.segment, head.uncacheable, head.storable, self.now)
        if lessons and self.teach is not None:
            self.teach(lessons)

    def learn(self, lessons: list[Lesson]) -> None:
        """Take over what another worker learned."""
        for lesson in lessons:
            self.learned.learn(lesson, self.now)

    # -- counting and reporting

    def count(self, name: str, amount: int = 1) -> None:
        """Add to one of the farm's counters."""
        self.farm[FARM_INDEX[name]] += amount

    def count_to(self, name: str, total: int) -> None:
        """Set one of the farm's counters that somebody else keeps."""
        self.farm[FARM_INDEX[name]] = total

    def report(self, exchange: Exchange, reason: Reason, detail: str) -> None:
        """Tell the operator of an exchange that ended badly."""
        self.reports.ended(exchange, reason, detail)

    def error_page(self, exchange: Exchange, reason: Reason, detail: str, keep: bool) -> bytes:
        """The error page for an exchange."""
        line = exchange.line
        exchange.request_id = exchange.request_id or self.reports.request_id()
        return pages.error_page(
            reason,
            detail,
            line.target,
            exchange.request_id,
            self.planner.via_name,
            keep=keep,
            head_only=line.method == b"HEAD",
            minor=line.minor,
        )

    def crashed(self, exc: Exception) -> None:
        """An error of ours: it is logged whole, and ends one connection only."""
        log.error("internal error: %r", exc, exc_info=exc)

    # -- the clock

    def _tick(self) -> None:
        self.now = now = self.clock()
        self._ticks += 1
        try:
            if self._ticks % 2 == 0:
                for client in [client for client in self.clients if client.deadline <= now]:
                    try:
                        client.expired()
                    except Exception as exc:
                        client.crashed(exc)
            if self._ticks % 5 == 0:
                for target in self.nodes.values():
                    target.expire(now)
                self.origins.expire(now)
            if self._ticks % 50 == 0:
                self.learned.expire(now)
            self._flush_counters()
            self.reports.tick(now)
        except Exception as exc:
            self.crashed(exc)
        self._ticker = self.loop.call_later(TICK_S, self._tick)

    def _flush_counters(self) -> None:
        farm, block = self.farm, self.block
        farm[FARM_INDEX["clients_open"]] = len(self.clients)
        farm[FARM_INDEX["learned_urls"]], farm[FARM_INDEX["learned_segments"]] = self.learned.sizes()
        block[: len(farm)] = memoryview(array.array("Q", farm))
        idle = NODE_INDEX["idle"]
        for target in self.nodes.values():
            target.counts[idle] = len(target.idle)
            start = node_offset(target.slot)
            block[start : start + len(target.counts)] = memoryview(array.array("Q", target.counts))

    def _close_all(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        for target in self.nodes.values():
            target.close_idle()
        self.origins.close()
        self.pipes.close()
        self.small_pipes.close()
        self.poller.close()
        self._flush_counters()
        self.reports.close()

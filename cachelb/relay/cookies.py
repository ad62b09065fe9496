"""Cookies that keep browsers with their nodes: read from requests, taken out on the way in, set on the way out.

insert: a cookie of our own, which no node ever sees.  prefix, rewrite: the node's token before or behind the value of a cookie
of the application, which sees its own value only.  A cookie whose token cannot be followed is ignored, counted by why, and an
inserted one is replaced by the answer: of the node that was used, whichever that was.

What an answer from a node's cache sets is nobody's session and stays as it is (Squid takes it out of hits itself).

Left out: tokens (``routing.tokens``), fields (``http.cookies``).
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from cachelb.http.cookies import (
    edit_answer,
    edit_request,
    request_cookies,
    set_cookie,
    split_prefix,
    split_suffix,
    with_prefix,
    with_suffix,
)
from cachelb.relay.memo import Memo
from cachelb.routing.tokens import Sealer, Token, is_expired, is_token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachelb.config import Config
    from cachelb.config_policy import CookieConfig
    from cachelb.http.response import ResponseHead
    from cachelb.relay.engine import Engine
    from cachelb.relay.upstream import Target
    from cachelb.routing.pool import Pool

TAKES: Final = frozenset(("up", "drain"))  # a node that drains keeps whom it has
REFRESHES: Final = 8  # a cookie is written anew after this part of the time that it may be idle
TOKENS_MAX: Final = 8  # of one name in one request; browsers send one for each path, others may send anything
KNOWN_TOKENS: Final = 8192  # that have been read before: 25 us become 0.3; about 250 B each
PRIVATE: Final = b"Cache-Control: private\r\n"
NEVER_STORED: Final = frozenset((b"private", b"no-store"))


class Cookie:
    """One [[cookie]], with the keys of its tokens."""

    def __init__(self, config: CookieConfig, secret: bytes) -> None:
        self.config = config
        self.name = config.cookie.encode("latin-1")
        self.is_own = config.mode == "insert"
        self.sealer = Sealer(secret, config.name)
        self.split: Callable[[bytes], tuple[bytes, bytes]] = split_suffix if config.mode == "rewrite" else split_prefix
        self.join: Callable[[bytes, bytes], bytes] = with_suffix if config.mode == "rewrite" else with_prefix
        self.max_idle_s = config.max_idle_s if self.is_own else 0.0  # of the application's, nobody knows when they were used
        self.known: Memo[bytes, Token] = Memo(KNOWN_TOKENS)
        self._pools: dict[str, tuple[Pool[Target], dict[bytes, Target]]] = {}

    def token_in(self, value: bytes) -> bytes:
        """The part of a value that should be a token; b"" if it can be none."""
        if self.is_own:
            return value
        mark, _ = self.split(value)
        return mark if is_token(mark) else b""

    def find(self, pool: Pool[Target], node: bytes) -> Target | None:
        """The node of a pool that a token means."""
        known = self._pools.get(pool.name)
        if known is None or known[0] is not pool:
            known = self._pools[pool.name] = pool, {self.sealer.node_id(target.name): target for target in pool.targets}
        return known[1].get(node)

    def line(self, token: Token) -> bytes:
        """The line that sets our own."""
        c = self.config
        return set_cookie(self.name, self.sealer.seal(token), c.domain, c.path, c.secure, c.http_only, c.same_site)


class Jar(NamedTuple):
    """What a request's cookies say.

    target: whom to ask first; None: that is for others to say.
    valid: for each [[cookie]] the node of a token that can be followed, and the token.
    """

    target: Target | None
    valid: dict[str, tuple[Target, Token]]


class Cookies:
    """All cookies of one relay."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = time.time
        self._cookies: dict[str, Cookie] = {}
        self._settings: object = None
        self._own = secrets.token_hex(32)  # of a relay that nobody has given any

    def configure(self, config: Config, secret: str) -> None:
        """Take over new settings, if they are new."""
        if self._settings != (config.cookie, secret):
            self._settings = config.cookie, secret
            key = (secret or self._own).encode()
            self._cookies = {cookie.name: Cookie(cookie, key) for cookie in config.cookie}

    def _of(self, names: Sequence[str]) -> list[Cookie]:
        """Those of a rule, which may be of a configuration that is no longer in force."""
        return [self._cookies[name] for name in names if name in self._cookies]

    def read(self, names: Sequence[str], block: bytes, pool: Pool[Target]) -> Jar:
        """Judge a request's cookies.

        Args:
            names: Of [[cookie]], in the order in which they decide.
            block: The request's field lines.
        """
        found = request_cookies(block)
        valid: dict[str, tuple[Target, Token]] = {}
        first: Target | None = None
        if found:
            now = self.clock()
            for cookie in self._of(names):
                for value in [value for key, value in found if key == cookie.name][:TOKENS_MAX]:
                    followed = self._judge(cookie, value, pool, now)
                    if followed is not None:
                        valid[cookie.config.name] = followed
                        first = first or followed[0]
                        break
        if first is not None:
            self.engine.count("cookies_followed")
        return Jar(first, valid)

    def _judge(self, cookie: Cookie, value: bytes, pool: Pool[Target], now: float) -> tuple[Target, Token] | None:
        text = cookie.token_in(value)
        if not text:
            return None  # the application's own, as it was before we came
        token = cookie.known.get(text)
        if token is None:
            token = cookie.sealer.open(text)
            if token is not None:
                cookie.known.offer(text, token)
        target = None if token is None else cookie.find(pool, token.node)
        if token is None:
            why = "forged" if is_token(text) else "malformed"
        elif is_expired(token, now, cookie.max_idle_s, cookie.config.max_life_s):
            why = "expired"
        elif target is None:
            why = "unknown"
        elif target.state not in TAKES:
            why = "dead"
        else:
            return target, token
        self.engine.count(f"cookies_{why}")
        return None

    def taken_out(self, names: Sequence[str], head: bytes) -> bytes:
        """A request's head as a node is sent it: with nothing of ours in its cookies."""
        cookies = {cookie.name: cookie for cookie in self._of(names)}

        def edit(name: bytes, value: bytes) -> bytes | None:
            cookie = cookies.get(name)
            if cookie is None:
                return value
            if cookie.is_own:
                return None
            return cookie.split(value)[1] if cookie.token_in(value) else value

        return edit_request(head, edit)

    def put_in(self, names: Sequence[str], jar: Jar, target: Target, head: ResponseHead) -> None:
        """Let an answer's head set what keeps the client with ``target``, which has given it."""
        now = int(self.clock())
        is_private = head.uncacheable in NEVER_STORED
        for cookie in self._of(names):
            if not cookie.is_own:
                if not head.hit:
                    self._mark(cookie, target, now, head)
                continue
            valid = jar.valid.get(cookie.config.name)
            since = now
            if valid is not None and valid[0] is target.everybodys():
                if not cookie.max_idle_s or now - valid[1].used < cookie.max_idle_s / REFRESHES:
                    continue
                since = valid[1].since
            head.head += cookie.line(Token(cookie.sealer.node_id(target.name), since, now))
            if not is_private:
                head.head += PRIVATE
                is_private = True
            self.engine.count("cookies_set")

    def _mark(self, cookie: Cookie, target: Target, now: int, head: ResponseHead) -> None:
        """Put the node into the application's cookie."""

        def edit(name: bytes, value: bytes) -> bytes | None:
            if name != cookie.name or value in (b"", b'""'):
                return None  # an empty one is taken back
            self.engine.count("cookies_set")
            return cookie.join(value, cookie.sealer.seal(Token(cookie.sealer.node_id(target.name), now, now)))

        head.head = edit_answer(head.head, edit)

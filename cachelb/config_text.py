"""The configuration as text: where a key stands in it, how it is written, and what is worth a warning.

Python's TOML reader does not say where a value was; a problem without a place is half a problem.  ``lines_of`` finds
the lines of all keys in a text that the reader has accepted, so it need not judge anything itself.

Left out: what the keys mean (config.py).
"""

from __future__ import annotations

import errno
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from cachelb.errors import Problem

if TYPE_CHECKING:
    from cachelb.config import Config

# Where a value is: ("node", 1, "weight") is the weight of the second [[node]].
Path = tuple[str | int, ...]

_SQUID_KEEPS_S = 120.0  # client_idle_pconn_timeout, its default

_STRING = r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*+"|' + r"'[^'\n]*+'"
_BLANK = re.compile(r"[ \t]*+")
_GAP = re.compile(r"(?:[ \t\n]++|#[^\n]*+)*+")
_SCALAR = re.compile(rf"(?s:{_STRING}|[^\n,#\]}}]*+)")
_key = re.compile(r'"(?:[^"\\\n]|\\.)*+"|\'[^\'\n]*+\'|[A-Za-z0-9_-]++').match
_bare = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_said_at = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)").search
_SYNTAX_HINTS = (
    ("Expected '=' after a key", "every line is a [section] or key = value"),
    ("Expected '", "a text in quotes is not closed"),
    ('Expected "', "a text in quotes is not closed"),
    ("Expected newline or end", 'texts need quotes, addresses among them: host = "10.0.0.11"'),
    ("Invalid value", 'texts need quotes: host = "cache1.example.net"; and it is true, not True'),
    ("Cannot overwrite", "this key was given before"),
    ("twice", "there is such a section already; put its keys together"),
    ("Cannot mutate immutable", "this was given before; nodes are [[node]], with two brackets"),
    ("Cannot declare", "this was given before"),
    ("Illegal character", "a text ends on the line on which it begins; a backslash in it is written twice"),
    ("Unescaped", "a backslash in a text is written twice"),
)


class Found(NamedTuple):
    """Something wrong at ``path``, which is not a place in a text yet."""

    path: Path
    text: str
    hint: str = ""


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of every key, table and list item of a valid TOML text.

    Raises:
        RecursionError: It is nested too deeply.
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    """Reads TOML that is known to be valid, for the places only."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # of the tables in each array of tables, so far
        self._line, self._counted = 1, 0

    def scan(self) -> dict[Path, int]:
        prefix: Path = ()
        while self.skip(_GAP) < len(self.text):
            start = self.at
            brackets = 2 if self.text.startswith("[[", start) else 1 if self.text[start] == "[" else 0
            self.at += brackets
            key = self.key()
            if brackets:
                prefix = self.table(key, array=brackets == 2)
                self.note(prefix, start)
                self.skip(_BLANK)
                self.at += brackets
            else:
                self.pair(prefix, key)
        return self.lines

    def skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        assert match is not None  # the patterns match nothing, too
        self.at = match.end()
        return self.at

    def note(self, path: Path, start: int) -> None:
        self._line += self.text.count("\n", self._counted, start)
        self._counted = start
        self.lines.setdefault(path, self._line)

    def key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self.skip(_BLANK)
            match = _key(self.text, self.at)
            assert match is not None
            self.at = match.end()
            quoted = match[0][0] in "\"'"
            parts.append(tomllib.loads("k=" + match[0])["k"] if quoted else match[0])
            self.skip(_BLANK)
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def table(self, key: list[str], *, array: bool) -> Path:
        path: Path = ()
        for part in key[:-1]:
            path += (part,)
            if path in self.counts:
                path += (self.counts[path] - 1,)
        path += (key[-1],)
        if array:
            self.note(path, self.at)
            self.counts[path] = self.counts.get(path, 0) + 1
            path += (self.counts[path] - 1,)
        return path

    def pair(self, prefix: Path, key: list[str]) -> None:
        """What follows a key: "=" and its value."""
        for part in key:
            prefix += (part,)
            self.note(prefix, self.at)
        self.at += 1
        self.value(prefix)

    def value(self, path: Path) -> None:
        self.skip(_BLANK)
        opening = self.text[self.at]
        if opening not in "[{":
            self.skip(_SCALAR)
            return
        closing = "]" if opening == "[" else "}"
        self.at += 1
        number = 0
        while self.text[self.skip(_GAP)] != closing:
            if opening == "[":
                self.note((*path, number), self.at)
                self.value((*path, number))
                number += 1
            else:
                self.pair(path, self.key())
            if self.text[self.skip(_GAP)] == ",":
                self.at += 1
        self.at += 1


def place_all(found: Iterable[Found], name: str, lines: dict[Path, int]) -> list[Problem]:
    """Problems of ``found``, each once, in the order of the text.

    Indices are counted as people do: ``node[2]`` is the second.
    """
    placed: dict[Problem, int] = {}
    for path, text, hint in found:
        known = path
        while known and known not in lines:
            known = known[:-1]
        line = lines.get(known, 0)
        where = f"{name}:{line}" if line else name
        placed.setdefault(Problem(f"{where} {dotted(path)}".rstrip(), text, hint), line)
    return sorted(placed, key=placed.__getitem__)


def dotted(path: Path) -> str:
    """A path as it is shown: ``node[2].weight``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += ("." if text else "") + (part if _bare(part) else _quoted(part))
    return text


def syntax_problem(name: str, text: str, exc: ValueError) -> Problem:
    """What the TOML reader said, with the place in front and, for usual slips, a hint."""
    said = str(exc)
    at = _said_at(said)
    what = said[: at.start()] if at else said.split("\n")[0]
    if "digits" in what:
        return Problem(name, "has a number of very many digits")
    line, column = (int(at[1]), int(at[2])) if at and at[1] else (text.count("\n") + 1, 0)
    place = f"{name}:{line}:{column}" if column else f"{name}:{line}"
    hint = next((hint for words, hint in _SYNTAX_HINTS if words in what), "")
    return Problem(place, "is not valid TOML: " + what[:1].lower() + what[1:], hint)


def unreadable(name: str, exc: Exception) -> Problem:
    """Why a file could not be read, in a sentence."""
    number = exc.errno if isinstance(exc, OSError) else None
    if number == errno.ENOENT:
        return Problem(name, "there is no such file", "say which with -c FILE")
    if number == errno.EISDIR:
        return Problem(name, "is a directory", "name the file in it")
    if number in (errno.EACCES, errno.EPERM):
        return Problem(name, "this user may not read it", "see its mode and those of the directories above it")
    said = exc.strerror if isinstance(exc, OSError) else None
    return Problem(name, f"cannot be read: {said or exc}")


def as_toml(config: Config) -> str:
    """The whole configuration as TOML, defaults included; ``parse`` makes an equal one of it."""
    sections = config.model_dump(mode="json")
    tables = [(f"[{name}]", values) for name, values in sections.items() if isinstance(values, dict)]
    tables += [(f"[[{name}]]", item) for name, values in sections.items() if isinstance(values, list) for item in values]
    return "\n".join(header + "\n" + "".join(_pairs(values)) for header, values in tables)


def _pairs(values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if value is not None:  # [icp] allow: as [access] allow
            yield f"{key} = {_value(value)}\n"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)} = {_value(item)}" for key, item in value.items()) + "}"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's, but JSON leaves DEL as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def summary(config: Config) -> str:
    """What a configuration makes, in one line."""
    where = ", ".join(map(str, config.listen.http))
    up = sum(node.state == "up" for node in config.node)
    count = f"{len(config.node)} node{'s' if len(config.node) > 1 else ''}, {up} up"
    return f"{count}; {config.hash.algorithm}; bypass {config.bypass.mode}; listening on {where}"


def warnings(config: Config) -> list[str]:
    """What is allowed but probably not meant: one sentence each."""
    return [*_doubtful(config), *_peers(config)]


def _doubtful(config: Config) -> Iterator[str]:
    if not config.access.allow:
        yield "access.allow is empty: every client will be refused"
    for network in config.access.allow:
        if network.prefixlen == 0:
            yield f"access.allow has {network}: the whole world may use the director"
    if config.bypass.mode == "direct" and config.bypass.allow_private:
        yield "bypass.allow_private: clients can reach private and loopback addresses through the director"
    for address in config.listen.admin:
        if not ip_address(address.host).is_loopback and not config.admin.token_file:
            yield f"listen.admin is {address}, but there is no [admin] token_file: only loopback is answered"
    if config.peers.directors and not config.admin.token_file:
        yield "peers.directors is set, but there is no [admin] token_file: directors on other hosts may not ask each other"
    if all(node.state == "down" for node in config.node):
        yield "every node has the state down: the farm serves nothing"
    if config.timeouts.node_keep_alive_s >= _SQUID_KEEPS_S:
        yield (
            f"timeouts.node_keep_alive_s is {config.timeouts.node_keep_alive_s:g}: a Squid closes idle connections "
            f"after {_SQUID_KEEPS_S:g} s, so some will die just when they are used"
        )


def _peers(config: Config) -> Iterator[str]:
    """About ICP, HTCP, the store logs and purges."""
    for network in config.access.purge:
        if network.prefixlen == 0:
            yield f"access.purge has {network}: the whole world may empty the caches"
    if config.icp.mode == "forward":
        for node in config.node:
            if not node.icp_port:
                yield f"icp.mode is forward, but {node.name} speaks no ICP (icp_port is 0): its URLs are answered from the index"
    if config.listen.store_log:
        by_host: dict[str, str] = {}
        for node in config.node:
            if node.store_log:
                continue
            other = by_host.setdefault(node.host, node.name)
            if other != node.name:
                yield (
                    f"{other} and {node.name} are both at {node.host}: their store logs cannot be told apart; "
                    "give them their own store_log"
                )

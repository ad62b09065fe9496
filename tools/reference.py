"""docs/reference.md, made of the code's own tables: ``python -m cachelb.tools.reference > docs/reference.md``.

Options come from the schema (``cachelb.config``), their meanings from the comments there: those behind a field, and those on
lines of their own above it.  Metrics are those that the collector renders for a farm of one node; reasons and counters are
``Reason`` and the tables of ``cachelb.counters``.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cachelb import config, config_hostnet
from cachelb.admin.metrics import text_of
from cachelb.counters import FARM, NODE, NODE_WIDTH, PEERS, Counter
from cachelb.errors import Reason

# What the schema's aliases and checks mean to who writes the file.
WORDS = {
    "Addresses": "list of address:port",
    "Network": "network",
    "Port": "port",
    "PortNumbers": "list of ports",
    "Ports": "list of ports and ranges",
    "Seconds": "seconds",
    "SecondsOrNone": "seconds, or 0",
    "Share": "0 to 1",
    "VirtualAddresses": "list of address dev interface",
    "bool": "true, false",
    "str": "text",
    "check_director": "URL",
    "check_account": "account",
    "check_header_rule": "header rule",
    "check_host": "host",
    "check_host_rule": "host rule",
    "check_interface": "interface",
    "check_mode": "mode",
    "check_name": "name",
    "check_path": "path",
    "check_path_rule": "path rule",
    "check_pseudonym": "name",
    "check_workers": '"auto" or a number',
    "parse_server": "address[:port]",
}
HEAD = """\
# Reference

Made of the code's own tables by `python -m cachelb.tools.reference > docs/reference.md`; do not edit it.

## Options

The file is TOML. A list of one may be written without brackets. Times end in `_s` (seconds), sizes in `_bytes`. An unknown option
or a value that cannot be is refused; `cachelb check -c FILE` names every mistake, and prints all that is in effect. A reload
(SIGHUP) takes over all but `[listen]`, `[admin] socket` and `socket_mode`, `[hostnet]`, `[intercept]` (of which it
takes over `non_http`), `[relay] workers`, `[index] keys` and `state`, and `[service] user`, `group` and `pid_file`: these need
`cachelb upgrade` or a restart.
"""
METRICS = """\
## Metrics

`GET /metrics` on the admin address. Counters only grow, and begin at 0 with each start. Those of `GET /api/v1/status` have the
names below without `cachelb_` and `_total`: in `farm`, `nodes[].counters` (without `node_`) and `onecache.counters`.
"""
REASONS = """\
## Reasons

How an exchange can end. The word is `reason` in an access log of the format `json` and in `cachelb_exchanges_ended_total`, and
the counter `ended_WORD` in `farm` of `/api/v1/status`. Status 0: no answer could be sent, or one was already on its way. Error:
because of a node, an origin or the director, not of the client. The type is that of `Proxy-Status` (RFC 9209).
"""


class Option(NamedTuple):
    """One option.  default: as in TOML; "required"; or "" where there is none."""

    section: str
    name: str
    type: str
    default: str
    meaning: str


class MetricRow(NamedTuple):
    """One family of /metrics; ``name`` as it is scraped."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def schema() -> str:
    """The source of all sections."""
    return "\n".join(inspect.getsource(module) for module in (config_hostnet, config))


def options(source: str) -> Iterator[Option]:
    """Every option of the schema, whose source is given."""
    tree = ast.parse(source)
    comments = _comments(source)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for section, name in _sections(classes["Config"]):
        defaults: Mapping[str, Any] = config.DEFAULTS[section]
        required: set[str] = set()
        if section == "node":
            fields = config.NodeConfig.model_fields
            required = {key for key, field in fields.items() if field.is_required()}
            defaults = config.NodeConfig(name="x", host="x").model_dump(mode="json")
        for node in classes[name].body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                key = node.target.id
                default = "required" if key in required else "" if defaults[key] is None else json.dumps(defaults[key])
                yield Option(section, key, type_of(node.annotation), default, _meaning(node, comments))


def sections(source: str) -> dict[str, str]:
    """What each section is for, by its name."""
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    return {section: ast.get_docstring(classes[name]) or "" for section, name in _sections(classes["Config"])}


def _sections(whole: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for node in whole.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            (name,) = re.findall(r"\w+Config", ast.unparse(node.annotation))
            yield node.target.id, name


def _comments(source: str) -> dict[int, tuple[str, bool]]:
    """For each line with a comment: its text, and whether nothing else is on the line."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string.lstrip("# ")
        if token.type == tokenize.COMMENT and not text.startswith("fmt:"):
            found[token.start[0]] = text, not token.line[: token.start[1]].strip()
    return found


def _meaning(node: ast.AnnAssign, comments: Mapping[int, tuple[str, bool]]) -> str:
    above: list[str] = []
    line = node.lineno - 1
    while line in comments and comments[line][1]:
        above.insert(0, comments[line][0])
        line -= 1
    inside = [comments[at][0] for at in range(node.lineno, (node.end_lineno or node.lineno) + 1) if at in comments]
    return "; ".join(filter(None, (" ".join(above), " ".join(inside))))


def type_of(annotation: ast.expr) -> str:
    """An annotation of the schema in an operator's words.

    Raises:
        KeyError: It is of a kind that has no word in WORDS yet.
    """
    if isinstance(annotation, ast.Name):
        return WORDS[annotation.id]
    if isinstance(annotation, ast.BinOp):  # X | None
        return type_of(annotation.left)
    if not isinstance(annotation, ast.Subscript):
        raise KeyError(ast.unparse(annotation))
    kind, inner = ast.unparse(annotation.value), annotation.slice
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if kind == "Literal":
        return ", ".join(json.dumps(ast.literal_eval(part)) for part in parts)
    if kind == "tuple":
        return f"list of {type_of(parts[0])}s"
    check = parts[1]
    if kind != "Annotated" or not isinstance(check, ast.Call):
        raise KeyError(ast.unparse(annotation))
    if ast.unparse(check.func) == "Field":
        bounds = {word.arg: eval_number(word.value) for word in check.keywords if word.arg in ("ge", "gt", "le")}
        low, high = bounds.get("ge", bounds.get("gt")), bounds["le"]
        return f"{low:,} to {high:,.12g}"
    return WORDS[ast.unparse(check.args[0])]


def eval_number(node: ast.expr) -> float:
    """A bound of the schema: a number, a shift, or a constant of cachelb.config."""
    if isinstance(node, ast.Name):
        return float(getattr(config, node.id))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
        return int(eval_number(node.left)) << int(eval_number(node.right))
    value = ast.literal_eval(node)
    assert isinstance(value, int | float)
    return value


def metrics() -> list[MetricRow]:
    """Every family of /metrics, in its order."""
    text = text_of(_blank_status(), {"x": [0] * NODE_WIDTH}, {1: 0.0}).decode()
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    rows = []
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        samples = re.findall(rf"^{name}(?:_bucket)?(?:\{{(.*)\}})? ", text, re.MULTILINE)
        labels = dict.fromkeys(label for sample in samples for label in re.findall(r'(\w+)="', sample))
        rows.append(MetricRow(name, kind, tuple(labels), helps[name]))
    return rows


def _blank_status() -> dict[str, Any]:
    """As much of a status as /metrics is made of, of one worker and one node."""

    def zeros(table: Iterable[Counter]) -> dict[str, int]:
        return {counter.name: 0 for counter in table}

    worker = {"number": 1, "pid": 1, "epoch": 0, "requests": 0, "restarts": 0, "clients_open": 0, "loop_lag_ms": 0.0}
    node = {"name": "x", "state": "up", "weight": 1.0, "key_share": 1.0, "in_flight": 0, "store": {"keys": 0}}
    return {
        "version": "", "versions": {"python": "", "uvloop": ""}, "started_at": 0.0, "epoch": 0, "reloads": 0,
        "config": {"digest": "", "loaded_at": 0.0, "problems": []},
        "peers": [{"url": "u", "agrees": True}],
        "farm": zeros(FARM), "onecache": {"icp": {"serving": True}, "counters": zeros(PEERS)},
        "workers": [worker], "nodes": [{**node, "counters": zeros(NODE)}],
    }  # fmt: skip


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(text: str) -> str:
    """Text that no character of Markdown or of a table spoils."""
    return re.sub(r"([|*<])", r"\\\1", text)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def page() -> str:
    """All of docs/reference.md."""
    source = schema()
    every = list(options(source))
    parts = [HEAD]
    for section, text in sections(source).items():
        rows = [
            (_code(option.name), _text(option.type), "required" if option.default == "required" else _code(option.default),
             _text(option.meaning))
            for option in every
            if option.section == section
        ]  # fmt: skip
        title = "[[node]]" if section == "node" else f"[{section}]"
        parts.append(f"### {title}\n\n{_text(text)}\n\n{table(('option', 'type', 'default', 'meaning'), rows)}")
    found = [(_code(row.name), row.kind, ", ".join(map(_code, row.labels)), _text(row.text)) for row in metrics()]
    parts.append(f"{METRICS}\n{table(('metric', 'kind', 'labels', 'meaning'), found)}")
    ends = [
        (_code(reason.label), str(row.status), "yes" if row.is_error else "", _code(row.proxy_status), _text(row.text))
        for reason in Reason
        for row in [reason.value]
    ]
    parts.append(f"{REASONS}\n{table(('reason', 'status', 'error', 'type', 'meaning'), ends)}")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())

"""cachelb-stats: is the farm well, and if not, where to look?

    cachelb-stats                                one screen: what is wrong first, then the farm, its nodes, the hot URLs
    cachelb-stats --watch                        live, with keys: ? shows them
    cachelb-stats --admin 10.0.0.5:3180 --token-file /etc/cachelb/token
    cachelb-stats --admin /run/cachelb/admin.sock --json

Exit status: 0 all well; 1 not well; 2 the director is down or does not answer; 3 wrong usage, or it refuses to tell.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from rich.console import Console

from .client import DEFAULT, Admin, Bad, Down, Refused, read_token
from .farm import Farm
from .poll import Poller
from .records import as_csv, as_json
from .screen import MIN_WIDTH, Look, screen
from .table import ORDERS
from .verdict import Verdict, judge

WELL, NOT_WELL, DOWN, USAGE = 0, 1, 2, 3
SECOND_LOOK_S = 1.1  # a director that has just started has no rates before its second look at the counters


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (SystemExit for wrong usage)."""
    options = _options(argv)
    try:
        token = read_token(options.token_file) if options.token_file else ""
        admin = Admin(options.admin, token, options.timeout)
    except Bad as problem:
        return _fail(str(problem), USAGE, options)
    if options.watch is not None:
        return _watch(admin, options)
    try:
        return _once(admin, options)
    except Down as problem:
        return _fail(str(problem), DOWN, options)
    except Refused as problem:
        hint = "" if options.token_file or problem.status not in (401, 403) else " (--token-file)"
        return _fail(f"{admin.where} refuses: {problem}{hint}", USAGE, options)
    except KeyboardInterrupt:
        return 130


def _once(admin: Admin, options: argparse.Namespace) -> int:
    poller = Poller(admin, time.monotonic)
    farm = poller.farm(hot=options.hot)
    if not farm.status.get("rates", {}).get("window_s"):
        time.sleep(SECOND_LOOK_S)
        farm = poller.farm(hot=options.hot)
    verdict = judge(farm)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the locale cannot write must not hide the rest
    _write(_text(farm, verdict, options))
    return WELL if verdict.is_well else NOT_WELL


def _text(farm: Farm, verdict: Verdict, options: argparse.Namespace) -> str:
    if options.json:
        return as_json(farm, verdict) + "\n"
    if options.csv:
        return as_csv(farm, verdict) + "\n"
    is_plain = "utf" not in (sys.stdout.encoding or "").lower()
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
    look = Look(
        width=max(MIN_WIDTH, console.width),
        is_plain=is_plain,
        every=options.all,
        order=options.sort,
        is_reversed=options.reverse,
        hot=options.hot,
    )
    with console.capture() as written:  # rich would end the process where a pipe breaks
        for line in screen(farm, verdict, look):
            console.print(line)
    return written.get()


def _write(text: str) -> None:
    """To stdout; where ``head`` has read enough, what the farm is like stays true."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  its flush at the end must not fail again


def _watch(admin: Admin, options: argparse.Namespace) -> int:
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):  # textual draws on stderr
        return _fail("--watch needs a terminal; without --watch one screen is printed", USAGE, options)
    from .watch import Watch  # it takes a third of a second to import, which one screen should not wait for

    app = Watch(Poller(admin, time.monotonic), options.watch, options.sort, options.reverse)
    app.run()
    return app.return_code or WELL


def _fail(text: str, status: int, options: argparse.Namespace) -> int:
    if options.json:
        _write(json.dumps({"well": None, "error": text}) + "\n")
    print(f"cachelb-stats: {text}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Wrong usage must not look like a director that is down."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    description, _, epilog = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser("cachelb-stats", description=description, epilog=epilog, formatter_class=raw)
    where = os.environ.get("CACHELB_ADMIN") or DEFAULT
    parser.add_argument("--version", action="version", version=f"cachelb {version('cachelb')}")
    parser.add_argument("--admin", metavar="WHERE", help=f"host:port or Unix socket; $CACHELB_ADMIN ({where})")
    parser.add_argument("where", nargs="?", metavar="WHERE", help="the same as --admin WHERE")
    token = os.environ.get("CACHELB_TOKEN_FILE") or ""
    parser.add_argument("--token-file", default=token, metavar="FILE", help="what [admin] token_file names; $CACHELB_TOKEN_FILE")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", nargs="?", type=_seconds, const=1.0, metavar="SECONDS", help="live, anew so often (1)")
    how.add_argument("--json", action="store_true", help="verdict, findings and the API's documents")
    how.add_argument("--csv", action="store_true", help="a line for the farm (without a name) and one for each node")
    parser.add_argument("--sort", choices=ORDERS, default="worst", help="the order of the nodes (worst)")
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    parser.add_argument("--all", action="store_true", help="every node and every finding, however many")
    parser.add_argument("--hot", type=_few, default=5, metavar="N", help="so many of the hot URLs, up to 100 (5)")
    parser.add_argument("--timeout", type=_seconds, default=2.0, metavar="SECONDS", help="for each answer (2)")
    options = parser.parse_args(argv)
    if options.admin is not None and options.where is not None:
        parser.error(f"--admin {options.admin}, or {options.where}?")
    options.admin = next((given for given in (options.admin, options.where) if given is not None), where)
    return options


def _seconds(text: str) -> float:
    return _within(text, 0.1, 3600.0, "seconds, 0.1 to 3600")


def _few(text: str) -> int:
    return int(_within(text, 0, 100, "a number up to 100"))


def _within(text: str, least: float, most: float, what: str) -> float:
    try:
        value: Any = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text}: {what}")
    return float(value)

"""The options of ``cachelb affinity``, apart from what it does: a director does not load what only asks it."""

from __future__ import annotations

import argparse

PAGE = 1000  # templates in one answer


def add(parser: argparse.ArgumentParser) -> None:
    """Complete the parser of the command."""
    parser.add_argument("what", choices=("list", "count", "flush"), help="templates, their number on each node, or forget them")
    parser.add_argument("--group", default="", metavar="NAME", help="of [[affinity]] (all)")
    parser.add_argument("--node", default="", metavar="NAME", help="only what leads to this node")
    parser.add_argument("--client", default="", metavar="ADDRESS", help="only what this client has")
    parser.add_argument("--limit", type=_count, default=PAGE, metavar="N", help=f"list so many at most ({PAGE})")
    parser.add_argument("--json", action="store_true", help="for programs")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < len(text) < 9 or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: a whole number above 0")
    return int(text)

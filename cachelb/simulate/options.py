"""The options of ``cachelb plan`` and ``cachelb simulate``.

What they do is in ``command``, which is loaded when it is needed: it takes longer than all other commands together.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cachelb.routing.table import ALGORITHMS
from cachelb.simulate.policies import POLICIES
from cachelb.simulate.store import FILL, SQUIDS

NODES_MAX = 1000
THEMES = ("light", "dark")

_size = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([KMGT])i?)?B?", re.IGNORECASE).fullmatch


def add_simulate(parser: argparse.ArgumentParser) -> None:
    """The options of ``cachelb simulate``."""
    _add_log(parser, required=True)
    farm = parser.add_mutually_exclusive_group()
    farm.add_argument("--nodes", type=_count, default=3, metavar="N", help="equal nodes, cache1 to cacheN (3)")
    farm.add_argument("-c", "--config", type=Path, metavar="FILE", help="the nodes and bypass rules of a configuration")
    parser.add_argument(
        "--size", type=size, required=True, metavar="SIZE", help="of the store of a node of weight 1, such as 10GB (GB = 2^30)"
    )
    parser.add_argument("--fill", type=_part, default=FILL, metavar="PART", help=f"of it that Squid uses ({FILL:g})")
    parser.add_argument(
        "--max-object", type=size, default=SQUIDS.largest, metavar="SIZE", help="larger ones are not stored (4MB, as in Squid)"
    )
    parser.add_argument("--min-object", type=size, default=SQUIDS.smallest, metavar="SIZE", help="smaller ones neither (0)")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="may be repeated (all)")
    parser.add_argument("--add", metavar="NAME[=WEIGHT]", help="the node that comes (the next number, weight 1)")
    parser.add_argument("--add-at", type=_part, default=0.5, metavar="PART", help="after this part of the requests (0.5)")
    parser.add_argument("--no-add", action="store_true", help="add no node")
    parser.add_argument("--jobs", type=_count, metavar="N", help="policies replayed at once (one per core)")
    _add_output(parser)
    parser.set_defaults(command=_simulate)


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options of ``cachelb plan``, but for -c."""
    before = parser.add_mutually_exclusive_group(required=True)
    before.add_argument("--against", type=Path, metavar="FILE", help="the configuration before the change")
    before.add_argument("--admin", metavar="URL", help="or a running director, such as http://127.0.0.1:3180")
    parser.add_argument("--algorithm", choices=[*ALGORITHMS], help="with --admin, of a director that does not say it")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="with --admin: the token, where one is needed")
    _add_log(parser, required=False)
    _add_output(parser)
    parser.set_defaults(command=_plan)


def _add_log(parser: argparse.ArgumentParser, *, required: bool) -> None:
    what = "access log, Squid's native format or combined, plain, gzip or zstd; - is standard input; may be repeated"
    parser.add_argument("--log", action="append", required=required, metavar="FILE", help=what)
    parser.add_argument(
        "--sample", type=_part, default=1.0, metavar="PART", help="of the URLs to look at, for logs with too many (1)"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write a chart, .svg or .png")
    parser.add_argument("--theme", choices=THEMES, default="light", help="of a PNG; an SVG follows the reader's (light)")
    parser.add_argument("--json", action="store_true", help="for programs")


def size(text: str) -> int:
    """Bytes of "10GB", "512 MB", "1.5T" or a number.  Raises ArgumentTypeError."""
    match = _size(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it like 10GB")
    return int(float(match[1]) * 1024 ** ("_KMGT".index(match[2].upper()) if match[2] else 0))


def _part(text: str) -> float:
    part = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < part <= 1:
        raise argparse.ArgumentTypeError("it is above 0, 1 (or 100%) at most")
    return part


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= NODES_MAX:
        raise argparse.ArgumentTypeError(f"1 to {NODES_MAX}")
    return count


def _simulate(options: argparse.Namespace) -> int:
    from cachelb.simulate.command import run_simulate

    return run_simulate(options)


def _plan(options: argparse.Namespace) -> int:
    from cachelb.simulate.command import run_plan

    return run_plan(options)

"""The command line of ``cachelb host``; apart from what it does, for that loads pyroute2."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_host(parser: argparse.ArgumentParser) -> None:
    """The command line of ``cachelb host``."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="show | apply | clear")
    for name, what in (
        ("show", "say what the configuration asks of this host, and whether it is there"),
        ("apply", "make it so"),
        ("clear", "take back all that is cachelb's"),
    ):
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".", allow_abbrev=False)
        command.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="the configuration (TOML)")
        if name == "show":
            command.set_defaults(dry_run=False)
        else:
            command.add_argument("--dry-run", action="store_true", help="print the commands, and change nothing")

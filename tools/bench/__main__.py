"""``python -m cachelb.tools.bench``: compare front ends, or measure the steps inside cachelb.  No logic."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from . import __doc__ as about
from . import page
from .compare import Turns
from .fronts import FRONTS, USUAL_FRONTS, with_others
from .processes import BenchError
from .report import steps_table
from .steps import step_times
from .suite import NAMES, Plan, run


class Amount(NamedTuple):
    """How much is measured unless more is said."""

    scenarios: tuple[str, ...]
    turns: Turns


FULL = Amount(NAMES, Turns(5, 3))
QUICK = Amount(("small", "close", "64k", "1m", "many"), Turns(3, 2))


def _names(text: str, known: Collection[str], what: str) -> list[str]:
    names = list(dict.fromkeys(filter(None, text.split(","))))
    for name in names:
        if name not in known:
            raise BenchError(f"there is no {what} {name!r}; known are {', '.join(known)}")
    if not names:
        raise BenchError(f"no {what} was given; known are {', '.join(known)}")
    return names


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cachelb.tools.bench", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fronts", help=f"in the order of their turns, of {','.join(FRONTS)} [{','.join(USUAL_FRONTS)}]")
    parser.add_argument("--scenarios", help=f"of {','.join(NAMES)} [all]")
    parser.add_argument("--rounds", type=int, help=f"turns of each front end in each scenario [{FULL.turns.rounds}]")
    parser.add_argument("--seconds", type=int, help=f"of each turn [{FULL.turns.seconds}]")
    parser.add_argument("--quick", action="store_true", help="less than 3 minutes: fewer scenarios, shorter turns")
    parser.add_argument(
        "--cachelb",
        metavar="[NAME=]COMMAND",
        action="append",
        default=[],
        help="how to call ours; with a NAME, given as often as wanted, another front end: another version of ours",
    )
    parser.add_argument("--steps", action="store_true", help="only measure the steps inside cachelb; 5 seconds")
    parser.add_argument("--docs", metavar="FOLDER", type=Path, help="also write bench.md, bench.json and the chart there")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything measured to FILE")
    return parser.parse_args(argv)


def plan_of(options: argparse.Namespace) -> Plan:
    """What the options ask for.

    Raises:
        BenchError: They ask for something that there is not.
    """
    usual = QUICK if options.quick else FULL
    rounds = usual.turns.rounds if options.rounds is None else options.rounds
    seconds = usual.turns.seconds if options.seconds is None else options.seconds
    if rounds < 1 or seconds < 1:
        raise BenchError("rounds and seconds must be 1 or more")
    known, commands = with_others(options.cachelb, f"{sys.executable} -m cachelb")
    named = [name for name in commands if name not in FRONTS]
    fronts = ",".join((*USUAL_FRONTS, *named)) if options.fronts is None else options.fronts
    return Plan(
        fronts=_names(fronts, known, "front end"),
        scenarios=_names(",".join(usual.scenarios) if options.scenarios is None else options.scenarios, NAMES, "scenario"),
        turns=Turns(rounds, seconds),
        commands=commands,
        known=known,
    )


def _run(options: argparse.Namespace) -> Any:
    if options.steps:
        times = step_times()
        print(steps_table(times))
        return [time._asdict() for time in times]
    plan = plan_of(options)
    print(f"{', '.join(plan.scenarios)}: about {plan.estimate_s / 60:.1f} minutes", file=sys.stderr)
    return run(plan)


def main(argv: list[str] | None = None) -> int:
    """Run; exit status 1 if it could not be."""
    options = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        if options.docs and not options.steps:
            page.check()
        result = _run(options)
        if options.docs and not options.steps:
            page.write(options.docs, result, NAMES)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    except (BenchError, OSError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

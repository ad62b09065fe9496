"""``python -m cachelb.tools.bench``: compare front ends, or measure the steps inside cachelb.  No logic."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

from . import __doc__ as about
from .compare import Plan, compare
from .fronts import FRONTS
from .load import SCENARIOS
from .processes import BenchError
from .report import steps_table
from .steps import step_times


class Amount(NamedTuple):
    """How much is measured unless more is said."""

    scenarios: str
    rounds: int
    seconds: int


FULL = Amount("small,close,64k,1m,10m,many", 3, 3)  # 12 minutes with four front ends
QUICK = Amount("small,close,64k,1m,many", 3, 2)  # 2 1/2 minutes


def _names(text: str, known: dict[str, Any], what: str) -> list[str]:
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
    parser.add_argument("--fronts", default=",".join(FRONTS), help="which, in the order of their turns [%(default)s]")
    parser.add_argument("--scenarios", help=f"of {','.join(SCENARIOS)} [{FULL.scenarios}]")
    parser.add_argument("--rounds", type=int, help="turns of each front end in each scenario [3]")
    parser.add_argument("--seconds", type=int, help="of each turn [3]")
    parser.add_argument("--quick", action="store_true", help="less than 3 minutes: fewer scenarios, shorter turns")
    parser.add_argument(
        "--cachelb", default=f"{sys.executable} -m cachelb", help="the command that is ours [%(default)s]"
    )
    parser.add_argument("--steps", action="store_true", help="only measure the steps inside cachelb; 5 seconds")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything measured to FILE")
    return parser.parse_args(argv)


def plan_of(options: argparse.Namespace) -> Plan:
    """What the options ask for.

    Raises:
        BenchError: They ask for something that there is not.
    """
    usual = QUICK if options.quick else FULL
    rounds = usual.rounds if options.rounds is None else options.rounds
    seconds = usual.seconds if options.seconds is None else options.seconds
    if rounds < 1 or seconds < 1:
        raise BenchError("rounds and seconds must be 1 or more")
    return Plan(
        fronts=_names(options.fronts, FRONTS, "front end"),
        scenarios=_names(usual.scenarios if options.scenarios is None else options.scenarios, SCENARIOS, "scenario"),
        rounds=rounds,
        seconds=seconds,
        cachelb=options.cachelb,
    )


def _run(options: argparse.Namespace) -> Any:
    if options.steps:
        times = step_times()
        print(steps_table(times))
        return [time._asdict() for time in times]
    plan = plan_of(options)
    print(f"{plan.runs} runs of {plan.seconds} s: about {plan.estimate_s / 60:.1f} minutes", file=sys.stderr)
    return compare(plan)


def main(argv: list[str] | None = None) -> int:
    """Run; exit status 1 if it could not be."""
    options = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        result = _run(options)
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

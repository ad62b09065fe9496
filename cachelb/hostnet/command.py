"""``cachelb host show | apply | clear``: what the director sets on its host, by hand.

    show    what the configuration asks for, and whether it is there; exit status 1 when something is not
    apply   make it so, as a director does at its start
    clear   take back all that is cachelb's, as a director does at its end

With ``--dry-run`` the commands are printed that would do the same, and nothing is changed.

Left out: the command line (``options``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from cachelb.config import load
from cachelb.errors import CommandError
from cachelb.hostnet import claim, netlink
from cachelb.hostnet.announce import Announcer
from cachelb.hostnet.host import apply, look, remove
from cachelb.hostnet.steps import Found, HostError, Step, conflicts, removal, steps
from cachelb.hostnet.wanted import AddressEntry, Wanted, wanted


def run(options: argparse.Namespace) -> int:
    """The exit status.

    Raises:
        ConfigError, CommandError: It cannot be done; nothing was changed.
    """
    want = wanted(load(options.config))
    try:
        return {"show": _show, "apply": _apply, "clear": _clear}[options.what](want, options.dry_run)
    except HostError as exc:
        raise CommandError("\ncachelb: ".join(exc.problems)) from exc


def _show(want: Wanted, _dry_run: bool) -> int:
    with netlink.opened() as link:
        found = look(want, link)
    text, status = shown(want, found, claim.holder())
    print(text)
    return status


def shown(want: Wanted, found: Found, holder: str) -> tuple[str, int]:
    """What is there, a line each, and the exit status.  holder: who keeps it so."""
    problems, missing = conflicts(want, found), {step.entry for step in steps(want, found) if step.add}
    lines = [f"{'missing' if entry in missing else 'there':8} {entry}" for entry in want.entries]
    lines += [f"{'left':8} {entry}" for entry in found.ours if entry not in want.entries and entry not in missing]
    lines += [f"{'problem':8} {problem}" for problem in problems]
    nothing = not found.ours and not want.entries
    lines.append("nothing is asked for, and nothing is there" if nothing else f"{holder or 'no director'} keeps it so")
    return "\n".join(lines), 1 if problems or missing else 0


def _apply(want: Wanted, dry_run: bool) -> int:
    if dry_run:
        with netlink.opened() as link:
            found = look(want, link)
        if problems := conflicts(want, found):
            raise HostError(*problems)
        _print(steps(want, found))
        return 0
    _print(apply(want))
    _announce(want)
    return 0


def _announce(want: Wanted) -> None:
    with netlink.opened() as link:
        addresses = [(entry.host, entry.interface) for entry in want.entries if isinstance(entry, AddressEntry)]
        places = [(host, interface, link.hardware[interface]) for host, interface in addresses if interface in link.hardware]
    try:
        announcer = Announcer(places)
        announcer.send()
    except OSError as exc:
        print(f"cachelb: addresses could not be announced: {exc.strerror}", file=sys.stderr)
    else:
        announcer.close()


def _clear(want: Wanted, dry_run: bool) -> int:
    if dry_run:
        with netlink.opened() as link:
            _print(removal(look(want, link)))
        return 0
    if holder := claim.holder():
        raise HostError(f"{holder} would put it back: stop that one, which clears the host")
    _print(remove(want))
    return 0


def _print(done: Iterable[Step]) -> None:
    for step in done:
        print(step.command)

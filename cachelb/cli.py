"""The ``cachelb`` command.  No logic: what ``run``, ``check``, ``upgrade`` and the others do is elsewhere.

Exit codes: 0; 1 for a configuration or machine that will not do, each problem a line on stderr; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from cachelb import __version__, config_text, running
from cachelb.affinity import options as affinity
from cachelb.config import load, load_with_warnings
from cachelb.errors import CommandError, ConfigError
from cachelb.explain import explain
from cachelb.explain_text import render
from cachelb.explained import BadQuestionError
from cachelb.hostnet.options import add_host
from cachelb.listen import host_names
from cachelb.running import RunningError
from cachelb.simulate import options as simulate

INTERRUPTED = 130  # what shells say of a program that was stopped by Ctrl-C

SIGNALS = """\
signals:
  TERM   accept nothing more, finish what runs (for [timeouts] drain_s at most), exit 0; a second time: end now
  INT    end now
  HUP    read the configuration again, open the logs anew; a bad configuration is refused, and the old one stays
  USR1   open the logs anew
  USR2   let the installed version take over on the same sockets (as: cachelb upgrade); if it cannot, this one goes on

Events go to stderr; systemd is notified (Type=notify).  [service] has the user, the group and the pid file."""
UPGRADE = """\
Checks the configuration, finds the director by [service] pid_file or its admin listener, and sends it SIGUSR2: it starts the
same command line again, with the code that is installed now, gives it the listening sockets, and ends when that one serves
and what it has begun itself is finished.  No request fails.  If the new version cannot start, the old one goes on.

exit status: 0 when the new version serves; 1 when the old one goes on, or none runs; the reason is on stderr."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.  Wrong usage ends in SystemExit(2), as argparse does it."""
    options = parser().parse_args(argv)
    try:
        code = int(options.command(options))
        if sys.stdout is not None:  # as it is where somebody has closed it
            sys.stdout.flush()
    except ConfigError as exc:
        for problem in exc.problems:
            _complain(str(problem))
        if len(exc.problems) > 1:
            _complain(f"{len(exc.problems)} problems in the configuration")
        return 1
    except (CommandError, RunningError) as exc:
        _complain(str(exc))
        return 1
    except BadQuestionError as exc:
        _complain(str(exc))
        return 2
    except BrokenPipeError:  # of our stdout: cachelb check | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _complain(text: str) -> None:
    print(f"cachelb: {text}", file=sys.stderr)


def _run(options: argparse.Namespace) -> int:
    from cachelb import launch  # not for check and explain: it loads the event loop

    return launch.run(options.config)


def _check(options: argparse.Namespace) -> int:
    config, warnings = load_with_warnings(options.config)
    if options.live:
        from cachelb import live

        problems = live.problems(config)
        for problem in problems:
            _complain(problem)
        return 1 if problems else 0
    from cachelb import cookiekey  # it loads the index

    print(config_text.as_toml(config))
    for warning in [*warnings, *filter(None, [cookiekey.trouble(config)])]:
        _complain(f"warning: {warning}")
    print(f"# OK: {config_text.summary(config)}")
    return 0


def _upgrade(options: argparse.Namespace) -> int:
    print(running.upgrade(load(options.config)))
    return 0


def _completion(options: argparse.Namespace) -> int:
    from cachelb.completion import script

    print(script(parser(), options.shell))
    return 0


def _explain(options: argparse.Namespace) -> int:
    config = load(options.config)
    found = explain(config, options.url, options.method, options.header, options.client, host_names=host_names())
    print(json.dumps(found.as_dict(), indent=2) if options.json else render(found), end="\n" if options.json else "")
    if found.kind == "hash" and not options.json:
        print("by the file alone: what answers have taught a running director, its admin page and cachelb-stats --watch (e) know")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from cachelb import demo

    return demo.run(once=options.once, nodes=options.nodes)


def _affinity(options: argparse.Namespace) -> int:
    from cachelb.affinity import command  # it loads the client of the admin API

    return command.run(options)


def _host(options: argparse.Namespace) -> int:
    from cachelb.hostnet import command  # it loads pyroute2

    return command.run(options)


def _token(_options: argparse.Namespace) -> int:
    print(secrets.token_urlsafe(32))
    return 0


def parser() -> argparse.ArgumentParser:
    """All of the command line."""
    parser = argparse.ArgumentParser(
        prog="cachelb",
        description="A director that makes a farm of Squid caches look like one big cache.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cachelb {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = _command(commands, "run", "run the director in the foreground", epilog=SIGNALS)
    run.set_defaults(command=_run)

    check = _command(commands, "check", "check a configuration and print what is in effect")
    check.add_argument("--live", action="store_true", help="say by the exit status whether the director that runs serves")
    check.set_defaults(command=_check)

    upgrade = _command(commands, "upgrade", "have the installed version take over from the one that runs", epilog=UPGRADE)
    upgrade.set_defaults(command=_upgrade)

    _add_explain(_command(commands, "explain", "say which node owns a URL, and why"))
    clients = _command(commands, "affinity", "list, count or flush the nodes that clients stay with")
    affinity.add(clients)
    clients.set_defaults(command=_affinity)

    host = _command(commands, "host", "show, set or clear what the director sets on its host", config=False)
    add_host(host)
    host.set_defaults(command=_host)

    simulate.add_plan(_command(commands, "plan", "say what a change of the nodes would move, before it is made"))
    simulate.add_simulate(
        _command(commands, "simulate", "say what hit ratio and load a farm would have, from access logs", config=False)
    )
    token = _command(commands, "token", "make a token for [admin] token_file: (umask 077; cachelb token > FILE)", config=False)
    token.set_defaults(command=_token)

    demo = _command(commands, "demo", "start a farm of real Squids on loopback, and the director", config=False)
    demo.add_argument("--once", action="store_true", help="send a few hundred requests, show what went where, and end")
    demo.add_argument("--nodes", type=_node_count, default=3, metavar="N", help="Squids to start (3)")
    demo.set_defaults(command=_demo)

    completion = _command(commands, "completion", "print a script that completes this command line in a shell", config=False)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="as: cachelb completion bash > FILE")
    completion.set_defaults(command=_completion)
    return parser


def _add_explain(asked: argparse.ArgumentParser) -> None:
    places = "tcp://ADDRESS:PORT, tls://NAME:PORT"
    asked.add_argument("url", metavar="URL", help=f"as a client asks for it; or where it connects to: {places}")
    asked.add_argument("--method", default="GET", metavar="METHOD", help="of the request (GET)")
    asked.add_argument(
        "--header", "-H", action="append", default=[], metavar="'NAME: VALUE'", help="of the request; may be repeated"
    )
    asked.add_argument("--client", default="127.0.0.1", metavar="ADDRESS", help="who asks (127.0.0.1)")
    asked.add_argument("--json", action="store_true", help="for programs")
    asked.set_defaults(command=_explain)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, *, config: bool = True, epilog: str = ""
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if config:
        parser.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="the configuration (TOML)")
    return parser


def _node_count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 32:
        raise argparse.ArgumentTypeError("1 to 32 nodes fit on one machine")
    return count

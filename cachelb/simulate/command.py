"""What ``cachelb plan`` and ``cachelb simulate`` do, in their order: read, replay or compare, tell.  No logic beyond that."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cachelb.config import Config, load
from cachelb.errors import CommandError
from cachelb.listen import host_names
from cachelb.relay.plan import plan_settings
from cachelb.simulate import chart, plan_report, report
from cachelb.simulate.plan import SAMPLE_URLS, Side, loads, made_up_urls, plan
from cachelb.simulate.policies import POLICIES, Node
from cachelb.simulate.replay import Case
from cachelb.simulate.run import read_logs, run, usable_cores
from cachelb.simulate.running import ask
from cachelb.simulate.store import Limits
from cachelb.simulate.trace import Trace

if TYPE_CHECKING:
    from cachelb.routing.classify import Policy
    from cachelb.simulate.reader import Reader


def run_simulate(options: argparse.Namespace) -> int:
    """``cachelb simulate``.

    Raises:
        ConfigError, CommandError.
    """
    if options.chart:
        chart.check(options.chart)
    nodes, policy = _farm(options)
    added = _added(options, nodes)
    with _trace() as trace:
        reader, damages = read_logs(options.log, policy, trace, options.sample)
        change = round(trace.requests * options.add_at) if added else 0
        limits = Limits(options.min_object, options.max_object)
        case = Case(nodes, options.size, limits, added, change, options.fill, options.sample)
        try:
            outcomes = run(options.policy or POLICIES, case, trace, options.jobs or usable_cores())
        except (OSError, MemoryError) as exc:
            raise CommandError(f"the replay ended: {exc or 'out of memory'}") from exc
        moments = tuple(trace.second(max(0, end - 1)) for end in outcomes[0].ends)
        at = trace.second(min(change, trace.requests - 1))
        found = report.Found(_read(options, reader, damages, trace, outcomes[0].sent), case, tuple(outcomes), moments, at)
    if options.chart:
        chart.draw_simulation(found, options.chart, options.theme)
    print(json.dumps(report.as_dict(found), indent=1) if options.json else report.text(found), end="\n" if options.json else "")
    return 0


def run_plan(options: argparse.Namespace) -> int:
    """``cachelb plan``.

    Raises:
        ConfigError, CommandError.
    """
    if options.chart:
        chart.check(options.chart)
    after = _side(options.config)
    if options.against:
        before = _side(options.against)
        notes = []
    else:
        before = ask(options.admin, options.algorithm, options.token_file)
        notes = ["        before: as it runs; nodes that are dead count as up; bypass rules are taken to be those of the file"]
        before = Side(before.name, before.algorithm, before.nodes, after.policy)
    if options.log:
        with _trace() as trace:
            reader, damages = read_logs(options.log, _everything(), trace, options.sample)
            requests, sent = loads(trace.chunks(), trace.urls)
            found = plan(before, after, trace.all_urls(), requests, sent)
            notes += report.problems(_read(options, reader, damages, trace, 0))
        keys = plan_report.keys_of_log(options.log, found.total)
    else:
        found = plan(before, after, made_up_urls(SAMPLE_URLS))
        keys = plan_report.keys_made_up(SAMPLE_URLS)
    if options.chart:
        chart.draw_plan(found, options.chart, options.theme)
    if options.json:
        print(json.dumps(plan_report.as_dict(found, keys, notes), indent=1))
    else:
        print(plan_report.text(found, keys, notes), end="")
    return 0


def _trace() -> Trace:
    try:
        return Trace()
    except OSError as exc:
        raise CommandError(f"no temporary file can be made: {exc.strerror} (TMPDIR says where they go)") from exc


def _farm(options: argparse.Namespace) -> tuple[tuple[Node, ...], Policy]:
    if options.config is None:
        nodes = tuple(Node(f"cache{number}") for number in range(1, options.nodes + 1))
        return nodes, plan_settings(Config()).policy
    side = _side(options.config)
    assert side.policy is not None
    if not any(node.weight > 0 and node.state != "down" for node in side.nodes):
        raise CommandError(f"{options.config}: no node takes requests")
    return side.nodes, side.policy


def _side(path: Path) -> Side:
    config = load(path)
    nodes = tuple(Node(node.name, node.weight, node.state) for node in config.node)
    return Side(str(path), config.hash.algorithm, nodes, plan_settings(config, host_names()).policy)


def _everything() -> Policy:
    """All URLs that any director would take: which of them go around the farm is each side's own to say."""
    return plan_settings(Config()).policy


def _added(options: argparse.Namespace, nodes: tuple[Node, ...]) -> Node | None:
    if options.no_add:
        return None
    names = {node.name for node in nodes}
    if options.add is not None:
        name, _, weight = options.add.partition("=")
        if name in names or not name:
            raise CommandError(f"--add {options.add}: there is such a node already" if name else "--add needs a name")
        try:
            node = Node(name, float(weight or 1))
        except ValueError:
            node = Node(name, 0.0)
        if not 0 < node.weight <= 256:
            raise CommandError(f"--add {options.add}: the weight is a number above 0, 256 at most")
        return node
    return Node(next(name for number in range(len(nodes) + 1, 10**6) if (name := f"cache{number}") not in names))


def _read(options: argparse.Namespace, reader: Reader, damages: list[str], trace: Trace, sent: int) -> report.Read:
    names = tuple("standard input" if name == "-" else name for name in options.log)
    shown = tuple("".join(c if c.isprintable() else "?" for c in line.decode("utf-8", "replace")) for line in reader.shown)
    left_out = dict(sorted(reader.left_out.items(), key=lambda item: -item[1]))
    begins, ends = trace.second(0), trace.second(trace.requests - 1)
    return report.Read(
        names, reader.lines, reader.requests, reader.urls, sent, reader.bad, shown, left_out, begins, ends, options.sample,
        tuple(damages),
    )  # fmt: skip

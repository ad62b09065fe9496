"""``cachelb demo``: start everything, show it, stop everything.

Wiring only: the farm, the origin and the director are started here, the requests come from ``traffic``, the verdict
from ``checks``.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

from digest import Fetched, fetch_digest, parse_digest, store_key

from .checks import PASSES, Observed, all_checks, client_requests, table
from .director import Director, DirectorError, director_config, director_ports
from .farm import SquidError, SquidFarm, find_squid, free_port, wait_until
from .leash import Leash
from .origin import OriginProcess
from .squid import is_icp_hit
from .traffic import Result, cacheable, private, run_errands, uncacheable

LOG_PATIENCE_S = 5.0  # Squid writes its log line after the answer
DIGEST_PATIENCE_S = 10.0  # it is made anew every 2 s here
ORIGIN_HOST = "127.0.0.10"


def show(once: bool, nodes: int) -> int:
    """Run the demo with that many Squids.  Returns the exit code."""
    if find_squid() is None:
        return _sorry("squid is not installed (as root on Debian or Ubuntu: apt-get install --no-install-recommends squid)")
    before = signal.signal(signal.SIGTERM, _end)
    try:
        return _show(once, nodes)
    except (SquidError, DirectorError, OSError, RuntimeError) as error:
        return _sorry(str(error))
    except KeyboardInterrupt:
        print("\nstopped")
        return 130 if once else 0  # the checks were not made
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(once: bool, nodes: int) -> int:
    farm = SquidFarm(nodes, usual_ports=not once, store_logs=True)
    try:
        _start_farm(farm)
        with OriginProcess(ORIGIN_HOST) as origin, Leash() as leash:
            http, admin = director_ports(preferred=not once)
            icp = "127.0.0.1", free_port("127.0.0.1", socket.SOCK_DGRAM, 0 if once else 3130)
            config = _config(farm, origin, http, admin, icp)
            director = Director(config, farm.directory, leash, http=http, admin=admin)
            _progress("starting the director")
            director.start()
            _progress(f"the director listens on {http[0]}:{http[1]}\n")
            try:
                show = _send_and_check if once else _stay
                passed = show(farm, origin, director, icp)
            finally:
                code = director.stop()
            if code != 0:
                return _sorry(f"the director ended with exit code {code}\n{director.log_tail()}")
            return 0 if passed else 1
    finally:
        farm.stop()


def _config(farm: SquidFarm, origin: OriginProcess, http: tuple[str, int], admin: tuple[str, int], icp: tuple[str, int]) -> str:
    # the demo's tunnels lead to the origin's port, which is not one that clients may usually CONNECT to
    access = f'[access]\nconnect_ports = [443, 563, {origin.port}]\npurge = ["127.0.0.0/8"]\n'
    listen = f'icp = "{icp[0]}:{icp[1]}"\n'
    return director_config(farm.node_tables(), http, admin, listen=listen, more=f"{access}\n[digest]\nrebuild_s = 2\n")


def _start_farm(farm: SquidFarm) -> None:
    began = time.monotonic()
    for node in farm.nodes:
        node.launch()
    for number, node in enumerate(farm.nodes):
        _progress(f"starting Squids: {number} of {len(farm.nodes)} ready")
        node.wait_ready()
    _progress(f"{len(farm.nodes)} Squids ready after {time.monotonic() - began:.1f} s\n")


def _stay(farm: SquidFarm, origin: OriginProcess, director: Director, icp: tuple[str, int]) -> bool:
    """Say how to use it, then wait for Ctrl-C.  Returns False when a process has ended by itself."""
    print(_usage(farm, origin, director, icp))
    try:
        while director.is_running:
            time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nstopping")
        return True
    print(f"the director has ended\n{director.log_tail()}", file=sys.stderr)
    return False


def _usage(farm: SquidFarm, origin: OriginProcess, director: Director, icp: tuple[str, int]) -> str:
    curl = f"curl -x {director.proxy}"
    own = sys.argv[0] if Path(sys.argv[0]).name == "cachelb" else f"{sys.executable} -m cachelb"
    tools = Path(sys.executable).parent
    nodes = "\n".join(
        f"  {node.name}  {node.host}:{node.http_port}  log {node.directory}/access.log  pid {node.pid}" for node in farm.nodes
    )
    return f"""
One cache at {director.proxy}, made of
{nodes}
Try, twice, and look at X-Cache:
  {curl} -sD- -o /dev/null {origin.base}/static/1
What no cache could store goes around the farm:
  {curl} -d hello {origin.base}/upload
Which node owns a URL, and why:
  {own} explain {origin.base}/static/1 -c {director.config_path}
What a peer cache is told, by ICP and by the digest of the whole farm:
  {tools}/cachelb-icpq {icp[0]}:{icp[1]} {origin.base}/static/1 {origin.base}/static/nobody
  {tools}/cachelb-digestq {director.proxy} {origin.base}/static/1
Have a URL forgotten by every node that holds it:
  {curl} -X PURGE {origin.base}/static/1
Kill a node (see its pid above), ask again; only its own URLs move.
Admin API: http://{director.admin[0]}:{director.admin[1]}/api/v1/status   the director's log: {director.log_path}
Ctrl-C stops and removes everything.
"""


def _send_and_check(farm: SquidFarm, origin: OriginProcess, director: Director, icp: tuple[str, int]) -> bool:
    """The few hundred requests of ``--once``, the table and the checks.  Returns whether all of them passed."""
    address = (origin.host, origin.port)
    stored, never, learned = cacheable(), uncacheable(), private()
    results: list[Result] = []
    # one pass after the other: a URL's second request must come after its first answer to be a hit; and the private
    # ones first and last, so that what one worker learned has reached the others
    for errands in (learned, stored, never, *[stored] * (PASSES - 1), learned):
        _progress(f"requests: {len(results)}")
        results += run_errands(director.http, address, errands)
    _progress(f"{len(results)} requests sent\n")
    seen = _observe(farm, origin, director, icp, results)
    print(f"\n{table(seen)}\n")
    checks = all_checks(seen)
    for check in checks:
        print(f"{'ok    ' if check.passed else 'FAILED'}  {check.text}: {check.detail}")
    passed = all(check.passed for check in checks)
    if not passed:
        print(f"\nthe director's log:\n{director.log_tail()}", file=sys.stderr)
    return passed


def _observe(farm: SquidFarm, origin: OriginProcess, director: Director, icp: tuple[str, int], results: list[Result]) -> Observed:
    stored = cacheable()
    visits = PASSES * len(stored)

    def are_logged() -> bool:
        return sum(len(client_requests(node.access_log(), origin.base)) for node in farm.nodes) >= visits

    wait_until(are_logged, LOG_PATIENCE_S)  # if it is not enough, the checks say what is missing
    logs = {node.name: client_requests(node.access_log(), origin.base) for node in farm.nodes}
    urls = [origin.base + errand.path for errand in stored]
    holders = {url: farm.holders(url) for url in urls}
    wait_until(lambda: all(_in_digest(director, urls).values()), DIGEST_PATIENCE_S, step_s=0.2)
    said = {url: is_icp_hit(icp, url) for url in [*urls, *(origin.base + errand.path for errand in private())]}
    in_digest = _in_digest(director, urls)
    counts = origin.counts()
    return Observed(origin.base, results, stored, uncacheable(), private(), logs, holders, counts, said, in_digest)


def _in_digest(director: Director, urls: list[str]) -> dict[str, bool]:
    """Whether the director's digest, as it is now, contains each URL."""
    answer = asyncio.run(fetch_digest(*director.http))
    if not isinstance(answer, Fetched):
        return dict.fromkeys(urls, False)
    mask = parse_digest(answer.body).mask
    return {url: mask.contains(store_key(url.encode())) for url in urls}


def _progress(text: str) -> None:
    """Overwrite the line on a terminal; elsewhere only what ends in a newline is worth a line."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)
    elif text.endswith("\n"):
        print(text, end="", flush=True)


def _sorry(text: str) -> int:
    print(f"cachelb demo: {text}", file=sys.stderr)
    return 1


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

"""Our nftables table, by the ``nft`` command: what it is now, replaced in one transaction, removed.

Left out: its rules (``wanted``).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Final

from cachelb.capabilities import NET_ADMIN, given_to_children
from cachelb.hostnet.steps import Foreign, HostError, Step
from cachelb.hostnet.wanted import TABLE, RulesetEntry

_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"  # where it is also for users whose own PATH does not say so
_TIMEOUT_S: Final = 10.0  # it takes some ms; with rulesets of many thousand rules, seconds
_SAID: Final = 300  # characters of its complaint
_ours = re.compile(rf'^table inet {TABLE} \{{\n\s*comment "cachelb ([0-9a-f]{{16}})"').match


def find() -> str | None:
    """Where the command is; None where there is none."""
    return shutil.which("nft", path=_PATH)


def found() -> tuple[RulesetEntry | None, Foreign | None]:
    """Our table, and one of its name that is not ours.

    Raises:
        HostError: That cannot be found out.
    """
    if find() is None:
        return None, None
    run = _run("list", "table", "inet", TABLE)
    if run.returncode:
        if "No such file or directory" in run.stderr or "does not exist" in run.stderr:
            return None, None
        raise HostError(refusal(run.stderr))
    match = _ours(run.stdout)
    if match is None:
        return None, Foreign(RulesetEntry("", run.stdout), f"table inet {TABLE}")
    return RulesetEntry(match[1], run.stdout), None


def do(step: Step) -> None:
    """Add or replace the table, or remove it.

    Raises:
        HostError: The command is missing, or the kernel refuses.
    """
    assert isinstance(step.entry, RulesetEntry)
    if step.add:
        run = _run("-f", "-", script=step.entry.script())
    else:
        run = _run("delete", "table", "inet", TABLE)
    if run.returncode and (step.add or "No such file or directory" not in run.stderr):
        raise HostError(refusal(run.stderr))


def check(entry: RulesetEntry) -> None:
    """Find out whether the kernel would take it; nothing is changed.

    Raises:
        HostError: It would not.
    """
    run = _run("-c", "-f", "-", script=entry.script())
    if run.returncode:
        raise HostError(refusal(run.stderr))


def _run(*words: str, script: str = "") -> subprocess.CompletedProcess[str]:
    path = find()
    if path is None:
        raise HostError("the command nft is missing, by which clients are intercepted (apt-get install nftables)")
    try:
        with given_to_children(NET_ADMIN):
            environment = {"LC_ALL": "C"}
            return subprocess.run(
                [path, *words], input=script, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment
            )
    except subprocess.TimeoutExpired as exc:
        raise HostError(f"nft takes longer than {_TIMEOUT_S:g} s") from exc
    except OSError as exc:
        raise HostError(f"{path} cannot be started: {exc.strerror}") from exc


def refusal(said: str) -> str:
    """What nft complains of, as a sentence."""
    first = " ".join(said.split())[:_SAID]
    if "Operation not permitted" in said:
        return "nftables cannot be asked or changed: CAP_NET_ADMIN is missing (root, or systemd's AmbientCapabilities=)"
    if "No such file or directory" in said or "not supported" in said:
        modules = "nft_tproxy, nft_socket and nft_fib_inet"
        return f"this kernel cannot intercept: it needs {modules} (modprobe, or CONFIG_NFT_TPROXY, ...); nft says: {first}"
    return f"nft refuses the table inet {TABLE}: {first}"

"""How many files this process and its workers may have open.

Each client takes two: its own connection, and one to a node or an origin.  The limit is raised to the hard one; as root
further, to what ``[limits] connections`` needs.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

SPARE = 512  # for pipes, kept connections, names, logs
MOST = Path("/proc/sys/fs/nr_open")


def needed(connections: int) -> int:
    """Descriptors for so many clients of one worker."""
    return 2 * connections + SPARE


def raise_file_limit(wanted: int = 0) -> int:
    """Allow as many descriptors as the hard limit lets us, and ``wanted`` where that may be raised; return the number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = hard if hard == resource.RLIM_INFINITY else max(hard, min(wanted, _most()))
    for limit in (more, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
    return soft


def shortage(files: int, connections: int) -> str:
    """A sentence for the operator when so few files do not allow so many clients; "" when they do."""
    if files == resource.RLIM_INFINITY or files >= needed(connections):
        return ""
    clients = max(0, files - min(SPARE, files // 2)) // 2
    return (
        f"only {files} open files are allowed: {clients} clients a worker, not [limits] connections = {connections}, "
        f"which needs {needed(connections)} (LimitNOFILE= in the unit, or ulimit -n)"
    )


def _most() -> int:
    try:
        return int(MOST.read_text())
    except (OSError, ValueError):
        return 1 << 20

"""A farm to look at: real Squids, an origin and the director on loopback.

``farm``, ``origin`` and ``director`` are also what the tests run against.  Nothing is imported here before it is
needed, so that ``python -m cachelb.demo.origin`` stays small.
"""

from __future__ import annotations


def run(once: bool = False, nodes: int = 3) -> int:
    """``cachelb demo``.

    once: send a few hundred requests, show what went where, check it, and stop; else run until Ctrl-C.
    Returns the exit code: 0, or 1 when something could not be started or a check failed.
    """
    from .show import show

    return show(once, nodes)

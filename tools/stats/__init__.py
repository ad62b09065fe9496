"""cachelb-stats: is the farm well, and if not, where to look.  A client of the admin API, and of nothing else."""

from __future__ import annotations

from .cli import main

__all__ = ["main"]

"""Runs the busiest modules of the relay and of ICP compiled, where that has been built: the same source, by mypyc.

``python -m cachelb.tools.compile`` puts the compiled modules into a folder of their own in site-packages, never beside the
sources, with the hash of every source that they were made from.  They are used only while all of these are unchanged, so what
runs is always what is written; after a change the sources run, uncompiled, until they are compiled again.

``CACHELB_COMPILED=0`` in the environment runs the sources, ``1`` refuses to run without the compiled modules.

CPU of a worker per request, 400 B on 32 kept connections, as a ratio to HAProxy in the same run (2026-11): 1.31 uncompiled,
1.14 compiled; 1.03 to 1.10 since heads are read byte by byte (``http.octets``).

``icp`` and ``digest`` know nothing of this and can be used alone.  Compiled modules call each other past Python's import, so
it is all or nothing: where one of them was imported from its source before ``cachelb``, the sources run.

What compiled code does otherwise, seen here: a slice of bytes that ends before its start is a SystemError, not b"".
And an optional tuple as a ``Final``, or a constant made of two tuples, is C that does not compile.
``tests/fuzz/fuzz_compiled.py`` looks for more.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

VARIABLE = "CACHELB_COMPILED"
FOLDER = "cachelb_compiled"  # in site-packages
MANIFEST = "manifest.json"
GROUP = "cachelb"  # mypyc puts the code of all modules into one library, cachelb__mypyc
ROOT = Path(__file__).parent.parent

# Those that a request passes through, and nothing else: what is not here can be replaced by a test, stepped into by a debugger.
MODULES = (
    *("cachelb.accesslog", "cachelb.counters", "cachelb.logfile"),
    *(f"cachelb.http.{name}" for name in ("caching", "fields", "framing", "freshness", "grammar", "head", "octets")),
    *(f"cachelb.http.{name}" for name in ("response", "responsehead", "rewrite", "url")),
    *(f"cachelb.http.usual_{name}" for name in ("answer", "fields", "line")),
    *(f"cachelb.relay.{name}" for name in ("access", "answer", "attempts", "bodies", "callers", "client", "door", "ends")),
    *(f"cachelb.relay.{name}" for name in ("engine", "exchange", "guests", "memo", "plan", "plans", "poller", "pump")),
    *(f"cachelb.relay.{name}" for name in ("sightings", "steer", "ticker", "upstream", "ways")),
    *(f"cachelb.routing.{name}" for name in ("classify", "keys", "learned", "pool", "ring", "route", "rules", "schedule")),
    *("cachelb.relay.intercepted", "cachelb.routing.table"),
    # and what an ICP query passes through, as far as that makes it faster
    # (not cluster.holdings: compiled, the restoring of a table that is larger than its limit did not end)
    *("cachelb.cluster.index", "cachelb.cluster.lookup", "digest.key", "icp.answer", "icp.batch", "icp.guard"),
)

in_use = False
"""Whether the compiled modules are what runs."""

why_not = ""
"""Why they are not, in a sentence; empty when they are."""


def source_of(module: str) -> Path:
    """The source of a module that is named as in ``MODULES``."""
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def fingerprint() -> dict[str, str]:
    """What compiled modules must have been made from to be used: the interpreter, and each source's SHA-256."""
    hashes = {module: hashlib.sha256(source_of(module).read_bytes()).hexdigest() for module in MODULES}
    return {"interpreter": sysconfig.get_config_var("SOABI") or "", **hashes}


def folder() -> Path:
    """Where compiled modules are kept for the running interpreter."""
    return Path(sysconfig.get_path("platlib")) / FOLDER


def problem(where: Path) -> str:
    """Why the modules in ``where`` cannot be used, in a sentence; empty if they can be."""
    try:
        manifest = json.loads((where / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        return "they have not been compiled (python -m cachelb.tools.compile)"
    except (OSError, ValueError) as exc:
        return f"{where / MANIFEST} cannot be read: {exc}"
    if manifest != fingerprint():
        return "the sources have changed since they were compiled (python -m cachelb.tools.compile)"
    return ""


class Finder(importlib.abc.MetaPathFinder):
    """Finds the compiled modules in one folder, and nothing else."""

    def __init__(self, where: Path) -> None:
        suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
        self._files = {module: where.joinpath(*module.split(".")) for module in MODULES}
        self._files[f"{GROUP}__mypyc"] = where / f"{GROUP}__mypyc"
        self._suffix = suffix

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As Python asks its finders."""
        found = self._files.get(fullname)
        if found is None:
            return None
        return importlib.util.spec_from_file_location(fullname, found.with_name(found.name + self._suffix))


def activate() -> None:
    """From here on import the compiled modules, if they may and can be used.

    Raises:
        ImportError: The environment asks for them, and they cannot be used.
    """
    global in_use, why_not
    wanted = os.environ.get(VARIABLE, "")
    where = folder()
    why_not = f"{VARIABLE}=0" if wanted == "0" else problem(where) or _too_late()
    if not why_not:
        sys.meta_path.insert(0, Finder(where))
        in_use = True
    elif wanted == "1":
        raise ImportError(f"{VARIABLE}=1, but the compiled modules cannot be used: {why_not}")


def _too_late() -> str:
    """Which of the modules runs from its source already, in a sentence; empty if none."""
    early = next((module for module in MODULES if module in sys.modules), None)
    return f"{early} was imported before cachelb" if early else ""

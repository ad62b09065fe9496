"""Compiles the busiest modules of the relay and of ICP with mypyc, for the Python that runs this.  See ``cachelb.compiled``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from cachelb import compiled

LOG_LINES = 15
# Nobody replaces a function of the library, so that its functions may call each other directly, and be inlined.
FLAGS = "-O3 -g0 -fno-semantic-interposition -fvisibility=hidden"


def lacking() -> str:
    """What compiling needs and this machine has not, in a sentence; empty if nothing."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        return f"there is no C compiler ({compiler}); on Debian or Ubuntu: apt-get install gcc libc6-dev python3-dev"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        return f"{header} is missing; on Debian or Ubuntu: apt-get install python3-dev libc6-dev"
    try:
        import mypyc  # noqa: F401
        import setuptools  # noqa: F401
    except ImportError as exc:
        return f"the package {exc.name} is not installed"
    return ""


def build(target: Path) -> None:
    """Compile into ``target``, which is replaced when all has gone well.

    Raises:
        subprocess.CalledProcessError: mypyc or the C compiler refused; its output says why.
    """
    with tempfile.TemporaryDirectory(prefix="cachelb-compile.") as name:
        root, work = compiled.ROOT, Path(name)
        sources = [str(compiled.source_of(module).relative_to(root)) for module in compiled.MODULES]
        fingerprint = compiled.fingerprint()
        environment = {**os.environ, compiled.VARIABLE: "0", "CFLAGS": FLAGS}
        subprocess.run(
            [sys.executable, "-c", _SETUP, str(work), compiled.GROUP, *sources],
            cwd=root,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        (work / "lib" / compiled.MANIFEST).write_text(json.dumps(fingerprint, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(work / "lib", target)


# In a process of its own: setuptools changes what it finds in the process that calls it.
_SETUP = """
import sys
from pathlib import Path
work, group, *sources = sys.argv[1:]
from mypyc.build import mypycify
from setuptools import setup
extensions = mypycify(["--config-file", "pyproject.toml", *sources], opt_level="3", debug_level="0",
                      group_name=group, target_dir=work + "/c")
setup(name=group, packages=[], ext_modules=extensions,
      script_args=["-q", "build_ext", "--build-lib", work + "/lib", "--build-temp", work + "/o"])
"""


def main(argv: list[str] | None = None) -> int:
    """Compile unless that is done already; exit status 1 if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m cachelb.tools.compile", description=__doc__)
    parser.add_argument("--if-possible", action="store_true", help="where it is not possible, say so and succeed")
    options = parser.parse_args(argv)
    target = compiled.folder()
    if not compiled.problem(target):
        return 0
    why = lacking()
    if not why:
        print("compile: the busiest modules of the relay and of ICP, with mypyc; takes a minute", file=sys.stderr, flush=True)
        begin = time.monotonic()
        try:
            build(target)
        except subprocess.CalledProcessError as exc:
            lines = (exc.stdout or "").splitlines()
            errors = [line for line in lines if "error" in line.lower()] or lines
            why = "it failed:\n  " + "\n  ".join(errors[-LOG_LINES:])
        else:
            print(f"compile: done in {time.monotonic() - begin:.0f} s", file=sys.stderr)
            return 0
    print(f"compile: not compiled: {why}", file=sys.stderr)
    if options.if_possible:
        print("compile: cachelb runs without, at about 1.2 times the CPU per small request", file=sys.stderr)
        return 0
    return 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)

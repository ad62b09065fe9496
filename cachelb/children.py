"""What our own processes run: the code of the one that starts them, wherever that is.

``python -m`` looks into the working directory first.  A director started there by its command would have workers of another
checkout, or whatever else lies in that directory under the name of one of Python's modules, as root.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).parent.parent)


def environment() -> dict[str, str]:
    """The environment for a Python process that is started with ``-m`` and one of our modules."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]  # an empty one is the directory, too
    # What is installed is found anyway, and must not come before the standard library.
    if ROOT not in sys.path[1:]:
        paths.insert(0, ROOT)
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}

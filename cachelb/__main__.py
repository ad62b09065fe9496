"""``python -m cachelb`` is ``cachelb``."""

from __future__ import annotations

import sys

from cachelb.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m cachelb.tools.stats``."""

import sys

from .cli import main

sys.exit(main())

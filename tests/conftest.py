"""What holds for all tests: the signals that the programs under test are sent reach them.

A shell's ``&`` and ``nohup`` make SIGINT and SIGHUP ignored, and that is inherited by every process below: nothing could be
interrupted or reloaded, and tests waited for ever.  A handler is not inherited, and one that does nothing keeps pytest itself
running at a hangup, as before.
"""

from __future__ import annotations

import signal

for _number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

"""Nothing that the demo or a test starts outlives it, not even when it is killed with SIGKILL.

A leash is one small shell that holds the reading end of a pipe.  It is told of each process we start; when the pipe
closes, because ``close`` was called or because we died, it kills what is left and removes the temporary files.
PR_SET_PDEATHSIG would be shorter, but it follows the *thread* that started the child, and the kernel clears it when
Squid changes its user.

Left out: starting and waiting for the processes; their owners do that.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

# Words on the pipe: "watch PID", "forget PID", "remove PATH".  SIGTERM comes first, for those with children.
_SCRIPT = """
trap '' INT TERM HUP
pids=' ' paths=
newline='
'
while read -r word value; do
  case $word in
    watch) pids="$pids$value " ;;
    forget) pids="${pids%% $value *} ${pids#* $value }" ;;
    remove) paths="$paths$value$newline" ;;
  esac
done
set -- $pids
if [ $# -gt 0 ]; then
  kill -CONT "$@"; kill -TERM "$@"
  n=0
  while [ $n -lt 20 ] && kill -0 "$@"; do sleep 0.05; n=$((n + 1)); done
  kill -KILL "$@"
fi
IFS=$newline
set -f
set -- $paths
rm -rf -- "$@"
exit 0
"""


class Leash:
    """Kills the processes it watches, and removes its paths, when this process ends in whatever way."""

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal must not end the leash before us
        )

    def watch(self, pid: int) -> None:
        """From now on `pid` ends with us."""
        self._tell(f"watch {pid}")

    def forget(self, pid: int) -> None:
        """`pid` has been waited for; its number may soon belong to somebody else."""
        self._tell(f"forget {pid}")

    def remove(self, path: Path) -> None:
        """Remove `path` and, if it is a directory, all below it at the end."""
        self._tell(f"remove {path}")

    def close(self) -> None:
        """End what is still watched, now, and wait until that is done."""
        if self._shell.stdin is not None and not self._shell.stdin.closed:
            self._shell.stdin.close()
        self._shell.wait()

    def _tell(self, line: str) -> None:
        pipe = self._shell.stdin
        assert pipe is not None
        pipe.write(line.encode() + b"\n")
        pipe.flush()

    def __enter__(self) -> Leash:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

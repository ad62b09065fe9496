from __future__ import annotations

import subprocess
import sys

import pytest

from cachelb.cli import main, parser


def test_each_command_takes_a_file():
    options = parser().parse_args(["host", "apply", "--dry-run", "-c", "x"])
    assert (options.what, options.dry_run, str(options.config)) == ("apply", True, "x")
    assert parser().parse_args(["host", "show", "-c", "x"]).dry_run is False


@pytest.mark.parametrize("words", ["host", "host apply", "host show --dry-run -c x", "host go -c x"])
def test_wrong_usage_ends_with_2(words: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as info:
        main(words.split())
    assert info.value.code == 2


def test_other_commands_do_not_load_pyroute2():
    script = "import sys, cachelb.cli, cachelb.launch; cachelb.cli.parser(); print('pyroute2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

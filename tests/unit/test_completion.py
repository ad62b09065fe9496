"""Completion scripts, read by the shells themselves where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cachelb.cli import parser
from cachelb.completion import script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_in_it_and_the_shell_can_read_it(shell: str, tmp_path: Path):
    text = script(parser(), shell)
    for word in ("run", "check", "explain", "upgrade", "demo", "completion", "config", "once", "json"):
        assert word in text
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(text)
    done = subprocess.run([program, "-n", tmp_path / "script"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def complete(line: str) -> list[str]:
    """What bash offers for the last word of a line."""
    asked = f"""
{script(parser(), "bash")}
COMP_WORDS=({line}) COMP_CWORD={len(line.split()) - (not line.endswith(" "))}
[[ {line!r} = *' ' ]] && COMP_WORDS+=('')
$(complete -p cachelb | sed 's/.*-F \\([^ ]*\\).*/\\1/') cachelb "${{COMP_WORDS[COMP_CWORD]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_commands_options_and_choices():
    assert complete("cachelb up") == ["upgrade"]
    assert "--config" in complete("cachelb run --c")
    assert sorted(complete("cachelb completion ")) == ["bash", "fish", "zsh"]

"""What is shipped beside the program: read by those it is for, and in step with it."""

from __future__ import annotations

import argparse
import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachelb.cli import parser
from cachelb.config import load

ROOT = Path(__file__).parent.parent.parent
PACKAGING = ROOT / "packaging"


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*words: object) -> str:
    """What a program says on both channels; it must end well."""
    done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the paths of this installation."""
    text = (PACKAGING / "systemd/cachelb.service").read_text().replace("/opt/cachelb/.venv/bin/cachelb", sys.executable)
    path = tmp_path / "cachelb.service"
    path.write_text(re.sub("(?m)^Documentation=.*\n", "", text))
    return path


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path):
    assert run(needs("systemd-analyze"), "verify", unit) == ""


def test_the_unit_is_as_hard_as_it_is_said_to_be(unit: Path):
    said = run(needs("systemd-analyze"), "security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for cachelb.service: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= 2.0
    assert "RestrictAddressFamilies=~AF_PACKET" in said


def test_the_units_limits_suit_the_defaults():
    text = (PACKAGING / "systemd/cachelb.service").read_text()
    config = load(PACKAGING / "cachelb.toml")
    assert int(re.findall(r"(?m)^LimitNOFILE=(\d+)$", text)[0]) >= 2 * config.limits.connections + 512
    assert int(re.findall(r"(?m)^TimeoutStopSec=(\d+)$", text)[0]) > config.timeouts.drain_s
    assert config.service.pid_file.startswith("/run/cachelb/")
    assert config.log.access.startswith("/var/log/cachelb/")


def test_logrotate_can_read_the_rotation(tmp_path: Path):
    program = shutil.which("logrotate") or shutil.which("logrotate", path="/usr/sbin")
    if program is None:
        pytest.skip("logrotate is not installed")
    (tmp_path / "cachelb").write_text((PACKAGING / "logrotate/cachelb").read_text())
    (tmp_path / "cachelb").chmod(0o644)
    said = run(program, "--debug", "--state", tmp_path / "state", tmp_path / "cachelb")
    assert "error" not in said.lower()
    assert "/var/log/cachelb/access.log" in said


@pytest.mark.parametrize("name", ["build", "postinst", "prerm", "postrm"])
def test_shell_scripts_can_be_read(name: str):
    assert run("sh", "-n", PACKAGING / "debian" / name) == ""


# -- the man page


def words_of(command: argparse.ArgumentParser) -> Iterator[str]:
    for action in command._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                yield name
                yield from words_of(each)


def test_the_man_page_has_every_command_and_option_and_no_others():
    page = (ROOT / "docs/cachelb.8").read_text().replace("\\-", "-")
    known = set(words_of(parser()))
    shown = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", page))
    assert {word for word in known if word not in shown and not re.search(rf"(?m)^\.(?:B|TP|BR) .*\b{word}\b", page)} == set()
    assert shown - known == set()


def test_man_finds_nothing_wrong_with_the_page():
    done = subprocess.run([needs("man"), "--warnings", "-l", ROOT / "docs/cachelb.8"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -- the container


def test_the_container_file_copies_what_there_is_and_all_that_is_needed():
    lines = (PACKAGING / "container/Containerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from=" not in line]
    paths = [path for some in copied for path in some]
    allowed = [line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")]
    for path in paths:
        assert (ROOT / path).exists(), path
        assert any(fnmatch.fnmatch(path, pattern) for pattern in allowed), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    directories = project["tool"]["setuptools"]["package-dir"]
    needed = {directories.get(name, name.replace(".", "/")).split("/")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert needed <= set(paths)
    texts = {project["project"]["readme"], *project["project"]["license-files"]}
    assert {"pyproject.toml", "requirements.lock"} | texts <= set(paths)

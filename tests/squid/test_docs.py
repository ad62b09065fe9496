"""What the documentation tells to write into squid.conf and cachelb.toml is accepted, and does what it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from cachelb.config import parse
from cachelb.demo.farm import find_squid

ROOT = Path(__file__).parents[2]
NODE = '[[node]]\nname = "cache1"\nhost = "10.0.0.11"\n'
PEERS, README = ROOT / "docs" / "peers.md", ROOT / "README.md"


class Block(NamedTuple):
    """A code block.  where: file and line, for the test's name.  heading: the last one above it."""

    where: str
    language: str
    heading: str
    text: str

    @property
    def is_squid_conf(self) -> bool:
        return self.language == "squidconf" or (not self.language and "squid.conf" in self.heading)


def blocks(path: Path) -> list[Block]:
    found: list[Block] = []
    heading, language, lines, first = "", None, [], 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fence = re.fullmatch(r"```(\w*)", line)
        if fence and language is None:
            language, lines, first = fence[1], [], number
        elif fence and language is not None:
            found.append(Block(f"{path.name}:{first}", language, heading, "".join(text + "\n" for text in lines)))
            language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line
    assert language is None, f"{path.name}:{first} does not end"
    return found


ALL = [*blocks(PEERS), *blocks(README)]
SQUID_CONF = [block for block in ALL if block.is_squid_conf]
TOML = [block for block in ALL if block.language == "toml"]


def squid_parse(text: str, directory: Path) -> str:
    """What squid says against `text`; empty: nothing."""
    conf = directory / "squid.conf"
    conf.write_text(f"http_port 127.0.2.250:3128\nvisible_hostname docs.test\npid_filename {directory}/pid\n{text}")
    squid = find_squid()
    assert squid is not None
    done = subprocess.run(
        [squid, "-k", "parse", "-n", "docs", "-f", conf], capture_output=True, text=True, timeout=30, check=False
    )
    complaints = [
        line for line in done.stderr.splitlines() if re.search(r"WARNING|ERROR|FATAL|UPGRADE|Bungled|unrecognized", line)
    ]
    return "\n".join(complaints) or (f"exit status {done.returncode}" if done.returncode else "")


def test_there_are_blocks_to_check():
    assert len([block for block in SQUID_CONF if block.where.startswith("peers")]) >= 7
    assert len([block for block in SQUID_CONF if block.where.startswith("README")]) >= 2
    assert {block.where.partition(":")[0] for block in TOML} == {"peers.md", "README.md"}


@pytest.mark.parametrize("block", SQUID_CONF, ids=lambda block: block.where)
def test_squid_accepts_what_is_shown(block: Block, tmp_path: Path):
    assert squid_parse(block.text, tmp_path) == ""


def test_squid_accepts_the_settings_named_in_tables(tmp_path: Path):
    lines = re.findall(r"`((?:never_direct|nonhierarchical_direct|minimum_icp_query_timeout) [^`]+)`", PEERS.read_text())
    assert len(lines) == 3
    assert squid_parse("".join(line + "\n" for line in lines), tmp_path) == ""


def test_a_line_that_squid_does_not_know_is_noticed(tmp_path: Path):
    assert "cache_peers" in squid_parse("cache_peers director.example.org parent 3128 0\n", tmp_path)


@pytest.mark.parametrize("block", TOML, ids=lambda block: block.where)
def test_the_director_accepts_what_is_shown(block: Block):
    parse(block.text if "[[node]]" in block.text else block.text + NODE, block.where)


def test_every_setting_that_is_named_exists():
    named = set(re.findall(r"`\[(\w+)\] (\w+)", PEERS.read_text()))
    assert named
    fields = parse(NODE, "").model_dump()
    assert [(section, key) for section, key in named if key not in fields[section]] == []

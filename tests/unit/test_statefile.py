"""A state file is there whole, or as it was."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

import pytest

from cachelb.statefile import CHECKSUM_BYTES, StateFile


def test_it_is_in_its_place_only_when_it_is_finished(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"before")
    file = StateFile(tmp_path, "x", 4)
    file.open()
    file.write(b"one")
    file.write(b"two")
    assert (tmp_path / "x").read_bytes() == b"before"
    digests: list[bytes] = []

    def header(body: bytes) -> bytes:
        digests.append(body)
        return b"HEAD"

    file.finish(header)
    assert (tmp_path / "x").read_bytes() == b"HEADonetwo"
    assert digests == [blake2b(b"onetwo", digest_size=CHECKSUM_BYTES).digest()]
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["x"]


def test_one_that_is_abandoned_leaves_nothing(tmp_path: Path):
    (tmp_path / "x.new").write_bytes(b"left by a crash")
    (tmp_path / "x.new").chmod(0o644)
    file = StateFile(tmp_path, "x", 4)
    file.open()
    assert (tmp_path / "x.new").stat().st_mode & 0o777 == 0o600
    file.write(b"one")
    file.abandon()
    assert os.listdir(tmp_path) == []
    StateFile(tmp_path, "y", 4).abandon()  # never opened


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        StateFile(tmp_path / "none", "x", 4).open()

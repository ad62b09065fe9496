from __future__ import annotations

import builtins
import gzip
import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from cachelb.simulate.reader import LINE_BYTES
from cachelb.simulate.source import LogError, Source

zstandard = pytest.importorskip("zstandard")

LINES = [b"line %d of the log" % n for n in range(200_000)]
TEXT = b"\n".join(LINES) + b"\n"


def lines_of(name: str | Path) -> list[bytes]:
    with Source(str(name)) as source:
        found = [line for batch in source.batches() for line in batch]
        assert source.damage == ""
    return found


@pytest.mark.parametrize("text", [TEXT, TEXT[:-1]])
def test_a_plain_file_with_and_without_its_last_line_feed(text: bytes, tmp_path: Path):
    path = tmp_path / "access.log"
    path.write_bytes(text)
    assert lines_of(path) == LINES
    with Source(str(path)) as source:
        assert source.size == len(text)
        for _ in source.batches():
            pass
        assert source.position == len(text)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("parts", [1, 3])
def test_compressed_ones_by_their_first_bytes_and_in_several_parts(compress, parts: int, tmp_path: Path):
    path = tmp_path / "access.log"  # no ending tells
    step = len(TEXT) // parts + 1
    path.write_bytes(b"".join(compress(TEXT[at : at + step]) for at in range(0, len(TEXT), step)))
    assert lines_of(path) == LINES


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_file_that_ends_in_the_middle_is_read_so_far(compress, tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(compress(os.urandom(1 << 20).hex().encode() + b"\n" + TEXT)[:-200])
    with Source(str(path)) as source:
        found = [line for batch in source.batches() for line in batch]
        if source.damage:  # a zstd frame that is cut gives no error, only less
            assert source.damage.startswith(f"{path}: the rest cannot be read: ")
        else:
            assert compress is zstandard.compress
    assert 1 <= len(found) <= len(LINES) + 1


def test_a_damaged_gzip_is_told(tmp_path: Path):
    path = tmp_path / "log"
    data = bytearray(gzip.compress(os.urandom(100_000)))
    data[50_000:50_100] = bytes(100)
    path.write_bytes(data)
    with Source(str(path)) as source:
        list(source.batches())
        assert "the rest cannot be read" in source.damage


def test_a_damaged_zstd_is_told(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(zstandard.compress(TEXT)[:100] + bytes(range(256)) * 40)
    with Source(str(path)) as source:
        list(source.batches())
        assert "the rest cannot be read" in source.damage


def test_a_pipe_is_read_as_it_comes(tmp_path: Path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(gzip.compress(TEXT)))
    writer.start()
    with Source(str(fifo)) as source:
        assert source.size == 0
        assert [line for batch in source.batches() for line in batch] == LINES
    writer.join()


def test_standard_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(TEXT))))  # type: ignore[arg-type]
    assert lines_of("-") == LINES


def test_a_line_without_end_takes_no_memory(tmp_path: Path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    longest = 0
    with Source(str(path)) as source:
        for batch in source.batches():
            longest = max(longest, *map(len, batch), 0)
    assert LINE_BYTES < longest <= 2 * LINE_BYTES + (1 << 20)


@pytest.mark.parametrize(("name", "why"), [("none", "No such file or directory"), (".", "Is a directory")])
def test_what_cannot_be_opened_is_a_sentence(name: str, why: str, tmp_path: Path):
    with pytest.raises(LogError) as caught:
        Source(str(tmp_path / name))
    assert str(caught.value) == f"{tmp_path / name}: {why}"


def test_zstd_without_its_package_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "log"
    path.write_bytes(zstandard.compress(TEXT))
    real = builtins.__import__

    def without(name: str, *arguments: object, **more: object) -> object:
        if name == "zstandard":
            raise ImportError(name)
        return real(name, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LogError, match=r"install the package zstandard .* zstd -dc FILE \|"):
        Source(str(path))


def test_an_empty_file_has_no_lines(tmp_path: Path):
    (tmp_path / "log").touch()
    assert lines_of(tmp_path / "log") == []


def test_a_real_pipe_from_another_process(tmp_path: Path):
    code = "from cachelb.simulate.source import Source\nprint(sum(len(b) for b in Source('-').batches()))"
    done = subprocess.run([sys.executable, "-c", code], input=gzip.compress(TEXT), capture_output=True, check=True, timeout=30)
    assert int(done.stdout) == len(LINES)

"""The access log's file: whole lines, no errors for the relay, nothing lost that need not be."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path

import pytest

from cachelb import logfile
from cachelb.logfile import LogFile


def line(text: bytes) -> bytes:
    return text + b"\n"


def open_log(path: Path | str, pending_bytes: int = 1 << 20) -> LogFile:
    return LogFile(str(path), pending_bytes)


class FakeWrite:
    """Stands for os.write: takes what ``answers`` say (a number of bytes, or an error number), then everything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: int | OSError) -> None:
        self.answers = list(answers)
        self.calls: list[bytes] = []
        self.disk = b""
        monkeypatch.setattr(logfile.os, "write", self)

    def __call__(self, fd: int, data: bytes) -> int:
        self.calls.append(data)
        answer = self.answers.pop(0) if self.answers else len(data)
        if isinstance(answer, OSError):
            raise answer
        self.disk += data[:answer]
        return min(answer, len(data))


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_lines_are_written_at_flush_in_order(tmp_path: Path) -> None:
    log = open_log(tmp_path / "a.log")
    log.append(line(b"one"))
    log.append(line(b"two"))
    assert (tmp_path / "a.log").read_bytes() == b""
    log.flush()
    log.append(line(b"three"))
    log.flush()
    log.flush()
    assert (tmp_path / "a.log").read_bytes() == b"one\ntwo\nthree\n"
    assert (log.dropped, log.errors) == (0, 0)
    log.close()


def test_the_file_is_appended_to_and_not_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for text in (b"one", b"two"):
        log = open_log(path)
        log.append(line(text))
        log.flush()
        log.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o007 == 0


def test_every_write_has_whole_lines_and_at_most_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path / "a.log")
    fake = FakeWrite(monkeypatch)
    for i in range(5000):
        log.append(line(b"%d" % i * 9))
    log.flush()
    assert len(fake.calls) > 2
    assert all(len(call) <= logfile.BATCH_BYTES and call.endswith(b"\n") for call in fake.calls)
    assert fake.disk == b"".join(b"%d" % i * 9 + b"\n" for i in range(5000))


def test_a_line_longer_than_a_batch_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path / "a.log")
    fake = FakeWrite(monkeypatch)
    long = b"x" * (logfile.BATCH_BYTES + 10)
    for text in (b"short", long, b"last"):
        log.append(line(text))
    log.flush()
    assert fake.calls == [b"short\n", long + b"\n", b"last\n"]


def test_several_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"

    def work(name: bytes) -> None:
        log = open_log(path)
        for i in range(2000):
            log.append(line(name * 60))
            if i % 100 == 0:
                log.flush()
        log.flush()
        log.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(path.read_bytes().split())) == [b"a" * 60, b"b" * 60, b"c" * 60]
    assert path.read_bytes().count(b"\n") == 6000


def test_lines_are_kept_while_the_disk_is_full_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log = open_log(tmp_path / "a.log")
    fake = FakeWrite(monkeypatch, FULL, FULL, FULL)
    for text in (b"one", b"two", b"three"):
        log.append(line(text))
        log.flush()
    assert log.errors == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "No space left" in caplog.text
    log.flush()
    assert fake.disk == b"one\ntwo\nthree\n"
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "0 lines were dropped" in caplog.text
    assert log.dropped == 0


def test_what_exceeds_the_bound_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path / "a.log", pending_bytes=20)
    fake = FakeWrite(monkeypatch, FULL)
    for _ in range(6):
        log.append(line(b"1234"))
    log.flush()
    assert log.dropped == 2
    log.flush()
    assert fake.disk == b"1234\n" * 4
    log.append(line(b"next"))
    log.flush()
    assert fake.disk == b"1234\n" * 4 + b"next\n"


@pytest.mark.parametrize("taken", range(13))
def test_a_line_that_was_cut_is_written_again_on_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Whatever number of bytes a full disk takes: every line is there whole, once, and any stump stands alone."""
    log = open_log(tmp_path / "a.log")
    fake = FakeWrite(monkeypatch, taken, 0, 1, 2)
    for text in (b"abc", b"def", b"ghi", b"jkl"):
        log.append(line(text))
    for _ in range(5):
        log.flush()
    lines = fake.disk.split(b"\n")
    whole = [line for line in lines if len(line) == 3]
    assert whole == [b"abc", b"def", b"ghi", b"jkl"]
    assert all(any(text.startswith(line) for text in whole) for line in lines)
    assert log.dropped == 0


def test_reopen_goes_on_in_a_new_file_after_rotation(tmp_path: Path) -> None:
    path, old = tmp_path / "a.log", tmp_path / "a.log.1"
    log = open_log(path)
    log.append(line(b"one"))
    path.rename(old)
    log.reopen()
    log.append(line(b"two"))
    log.flush()
    assert (old.read_bytes(), path.read_bytes()) == (b"one\n", b"two\n")


def test_a_failed_reopen_keeps_the_old_file(tmp_path: Path) -> None:
    folder, old = tmp_path / "logs", tmp_path / "old"
    folder.mkdir()
    log = open_log(folder / "a.log")
    folder.rename(old)
    log.reopen()
    assert log.errors == 1
    log.append(line(b"one"))
    log.flush()
    assert (old / "a.log").read_bytes() == b"one\n"


def test_a_deleted_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = open_log(path)
    path.unlink()
    log.append(line(b"one"))
    log.flush()
    assert path.read_bytes() == b"one\n"


def test_a_deleted_directory_is_an_error_until_it_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = open_log(folder / "a.log")
    (folder / "a.log").unlink()
    folder.rmdir()
    log.append(line(b"one"))
    log.flush()
    log.reopen()
    assert log.errors >= 1
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 1
    folder.mkdir()
    log.flush()
    assert (folder / "a.log").read_bytes() == b"one\n"


@pytest.mark.parametrize("path", ["/nonexistent/a.log", "/", "a\0b"])
def test_a_path_that_cannot_be_opened_raises_nothing(path: str) -> None:
    log = open_log(path)
    log.append(line(b"one"))
    log.flush()
    log.reopen()
    log.close()
    assert log.errors >= 2
    assert log.dropped == 1


def test_a_pipe_gets_batches_that_do_not_mix_and_never_blocks(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    log = open_log(path)
    assert log.errors == 1  # no reader yet
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    for i in range(4000):
        log.append(line(b"%060d" % i))
    received = b""
    log.flush()  # more than the pipe holds: the rest waits
    while len(received) < 4000 * 61:
        received += os.read(reader, 1 << 20)
        log.flush()
    assert received == b"".join(b"%060d\n" % i for i in range(4000))
    assert (log.dropped, log.errors) == (0, 1)
    os.close(reader)
    log.close()


def test_a_reader_that_has_gone_is_an_error_not_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = open_log(path)
    os.close(reader)
    log.append(line(b"one"))
    log.flush()
    assert log.errors == 1


def test_a_dash_is_standard_output_which_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    log = open_log("-")
    log.append(line(b"one"))
    log.flush()
    log.reopen()
    log.close()
    os.write(1, b"still open\n")
    assert capfd.readouterr().out == "one\nstill open\n"


def test_close_counts_what_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path / "a.log")
    FakeWrite(monkeypatch, FULL, FULL)
    for _ in range(3):
        log.append(line(b"x"))
    log.flush()
    log.close()
    assert log.dropped == 3

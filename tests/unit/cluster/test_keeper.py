"""``Keeper``: what is known survives a restart, or the operator is told why not."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from cachelb.cluster import keeper as module
from cachelb.cluster.holdings import Holdings, Source
from cachelb.cluster.keeper import BAD_NAME, LOCK_NAME, Keeper, Legacy, state_directory
from cachelb.cluster.saved import FILE_NAME
from cachelb.config import IndexConfig
from cachelb.snapshot import NodeView
from cachelb.statefile import StateError

NOW = 1_800_000_000
LATER = NOW + 3600
SLOTS = {"cache1": 0, "cache2": 1}
KEY, OTHER = b"k" * 16, b"o" * 16


@pytest.fixture(autouse=True)
def _no_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def keeper(directory: Path | str, *, save_s: float = 300.0, slots: dict[str, int] = SLOTS) -> Keeper:
    return Keeper(IndexConfig(state=str(directory), save_s=save_s, keys=1000), slots, lambda: float(NOW))


def once(kept: Keeper) -> Holdings:
    """Load, and release."""
    holdings = kept.load()
    asyncio.run(kept.close())
    return holdings


def filled(directory: Path) -> None:
    kept = keeper(directory)
    kept.load().add(KEY, 1, LATER, Source.SEEN)
    asyncio.run(kept.close())


def test_what_was_known_is_known_again_by_the_names_of_the_nodes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    filled(tmp_path)
    again = once(keeper(tmp_path, slots={"cache2": 7}))
    assert [held.node for held in again.holders(KEY)] == [7]
    assert again.as_of == NOW
    assert again.keys_limit == 1000
    assert f"{tmp_path}: 1 objects of the nodes are known" in caplog.messages


def test_nobody_else_may_read_it(tmp_path: Path):
    mask = os.umask(0)
    try:
        filled(tmp_path)
    finally:
        os.umask(mask)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {FILE_NAME: 0o600, LOCK_NAME: 0o600}


def test_a_node_that_came_later_is_saved_under_its_name(tmp_path: Path):
    kept = keeper(tmp_path)
    holdings = kept.load()
    kept.place([NodeView("cache9", 9, ("127.0.0.1",), 3128, 1.0, "up")])
    holdings.add(KEY, 9, LATER, Source.SEEN)
    asyncio.run(kept.close())
    assert [held.node for held in once(keeper(tmp_path, slots={"cache9": 3})).holders(KEY)] == [3]


def test_it_is_saved_from_time_to_time_when_there_is_something_new(tmp_path: Path):
    kept = keeper(tmp_path, save_s=0.01)
    holdings = kept.load()
    path = tmp_path / FILE_NAME

    async def scenario() -> None:
        task = asyncio.ensure_future(kept.run())
        async with asyncio.timeout(10):
            for _ in range(5):
                await asyncio.sleep(0.01)
            assert not path.exists()
            holdings.add(KEY, 0, LATER, Source.SEEN)
            while not kept.saved_at:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            first = path.stat().st_ino
            for _ in range(5):
                await asyncio.sleep(0.01)
            assert path.stat().st_ino == first
            holdings.add(OTHER, 0, LATER, Source.SEEN)
            while path.stat().st_ino == first:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        await kept.close()

    asyncio.run(scenario())
    assert kept.status() == {"directory": str(tmp_path), "saved_at": NOW, "problem": ""}
    assert once(keeper(tmp_path)).count() == 2


def test_another_interval_is_taken_over(tmp_path: Path):
    kept = keeper(tmp_path, save_s=300.0)
    kept.configure(IndexConfig(state="/elsewhere", save_s=0.01, keys=5000))
    kept.load().add(KEY, 0, LATER, Source.SEEN)

    async def scenario() -> None:
        task = asyncio.ensure_future(kept.run())
        async with asyncio.timeout(10):
            while not kept.saved_at:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        await kept.close()

    asyncio.run(scenario())
    assert (tmp_path / FILE_NAME).exists()


def test_a_saving_that_is_cut_short_by_the_end_is_repeated(tmp_path: Path):
    kept = keeper(tmp_path, save_s=0.001)
    kept.load().add(KEY, 0, LATER, Source.SEEN)

    async def scenario() -> None:
        task = asyncio.ensure_future(kept.run())
        while not kept._saving.locked():  # noqa: ASYNC110
            await asyncio.sleep(0.0005)
        task.cancel()
        await kept.close()

    asyncio.run(scenario())
    assert sorted(os.listdir(tmp_path)) == [FILE_NAME, LOCK_NAME]
    assert once(keeper(tmp_path)).count() == 1


def test_a_bad_file_is_told_and_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / FILE_NAME).write_bytes(b"nonsense")
    assert once(keeper(tmp_path)).count() == 0
    assert f"{tmp_path / FILE_NAME}: not a file of holdings" in caplog.text
    assert (tmp_path / BAD_NAME).read_bytes() == b"nonsense"
    caplog.clear()
    filled(tmp_path)
    assert once(keeper(tmp_path)).count() == 1
    assert caplog.messages == []


def test_a_file_that_cannot_be_read_is_set_aside_too(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / FILE_NAME).mkdir()
    assert once(keeper(tmp_path)).count() == 0
    assert "Is a directory" in caplog.text
    assert (tmp_path / BAD_NAME).is_dir()


def test_a_file_that_cannot_be_renamed_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / FILE_NAME).write_bytes(b"nonsense")
    (tmp_path / BAD_NAME).mkdir()
    assert once(keeper(tmp_path)).count() == 0
    assert "cannot be renamed" in caplog.text


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_directory_that_is_none_is_told_and_the_director_works_without(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_bytes(b"")
    kept = keeper(tmp_path / name)
    holdings = kept.load()
    holdings.add(KEY, 0, LATER, Source.SEEN)
    asyncio.run(kept.close())
    assert "no such directory: what the nodes hold is not kept over a restart" in caplog.text
    assert "no such directory" in kept.status()["problem"]
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_is_not_writable_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tmp_path.chmod(0o500)
    once(keeper(tmp_path))
    assert "Permission denied" in caplog.text


def test_what_the_system_says_of_the_lock_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / LOCK_NAME).mkdir()
    once(keeper(tmp_path))
    assert f"[index] state {tmp_path}: Is a directory" in caplog.text


def test_two_directors_do_not_share_a_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    first = keeper(tmp_path)
    first.load().add(KEY, 0, LATER, Source.SEEN)
    second = keeper(tmp_path)
    second.load().add(OTHER, 0, LATER, Source.SEEN)
    assert "another director keeps its state there" in caplog.text
    asyncio.run(second.close())
    asyncio.run(first.close())
    assert once(keeper(tmp_path)).holders(KEY)


def test_a_disk_that_fails_is_told_once_and_when_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    real, tries = module.save_aside, 0

    async def failing(*arguments: object) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise StateError("cannot save: No space left on device")
        await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "save_aside", failing)
    kept = keeper(tmp_path, save_s=0.001)
    kept.load().add(KEY, 0, LATER, Source.SEEN)

    async def scenario() -> None:
        task = asyncio.ensure_future(kept.run())
        async with asyncio.timeout(10):
            while not kept.saved_at:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        task.cancel()
        await kept.close()

    asyncio.run(scenario())
    assert caplog.messages == ["cannot save: No space left on device", f"{tmp_path} is saved again"]


def test_a_disk_that_fails_at_the_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def failing(*_: object) -> None:
        raise StateError("cannot save: Input/output error")

    monkeypatch.setattr(module, "save", failing)
    kept = keeper(tmp_path)
    kept.load().add(KEY, 0, LATER, Source.SEEN)
    asyncio.run(kept.close())
    assert caplog.messages == ["cannot save: Input/output error"]


def test_a_disk_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "save", lambda *_: time.sleep(0.5))
    monkeypatch.setattr(module, "END_S", 0.02)
    kept = keeper(tmp_path)
    kept.load().add(KEY, 0, LATER, Source.SEEN)
    start = time.monotonic()
    asyncio.run(kept.close())
    assert time.monotonic() - start < 0.4
    assert "took more than 0.02 s" in caplog.text


def test_without_a_directory_nothing_is_kept_and_nothing_is_wrong(caplog: pytest.LogCaptureFixture):
    kept = keeper("")
    kept.load().add(KEY, 0, LATER, Source.SEEN)
    asyncio.run(kept.close())
    assert kept.status() == {"directory": None, "saved_at": 0, "problem": ""}
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        ("/a", {}, Path("/a")),
        ("/a", {"STATE_DIRECTORY": "/b"}, Path("/a")),
        ("", {"STATE_DIRECTORY": "/b"}, Path("/b")),
        ("", {"STATE_DIRECTORY": "/b:/c"}, Path("/b")),
        ("", {"STATE_DIRECTORY": ""}, None),
        ("", {}, None),
    ],
)
def test_the_directory_is_the_configured_one_or_the_service_managers(
    configured: str, environment: dict[str, str], expected: Path | None
):
    assert state_directory(configured, environment) == expected


def test_the_service_managers_directory_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    kept = keeper("")
    kept.load().add(KEY, 0, LATER, Source.SEEN)
    asyncio.run(kept.close())
    assert (tmp_path / FILE_NAME).exists()


# -- from one director to the next


def heir(directory: Path | str, legacy: Legacy) -> Keeper:
    return Keeper(IndexConfig(state=str(directory), keys=1000), SLOTS, lambda: float(NOW), legacy)


def test_the_next_director_begins_with_what_this_one_knows_and_has_its_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        first = keeper(tmp_path)
        first.load().add(KEY, 1, LATER, Source.SEEN)
        assert await first.hand_over() is None
        second = heir(tmp_path, Legacy(None, os.dup(first.lock)))
        holdings = second.load()
        assert [held.node for held in holdings.holders(KEY)] == [1]
        first._holdings.add(OTHER, 1, LATER, Source.SEEN)  # comes too late
        await first.close()
        assert keeper(tmp_path).load().count() == 0  # it is locked still
        assert "another director keeps its state there" in caplog.text
        holdings.add(b"n" * 16, 1, LATER, Source.SEEN)
        await second.close()
        third = keeper(tmp_path)
        assert third.load().count() == 2
        await third.close()

    asyncio.run(scenario())


def test_without_a_state_directory_it_goes_by_one_that_lives_only_for_that():
    async def scenario() -> None:
        first = keeper("")
        first.load().add(KEY, 1, LATER, Source.SEEN)
        directory = await first.hand_over()
        assert directory is not None
        assert directory.stat().st_mode & 0o777 == 0o700
        holdings = heir("", Legacy(directory)).load()
        assert [held.node for held in holdings.holders(KEY)] == [1]
        assert not directory.exists()
        await first.close()

    asyncio.run(scenario())


def test_what_was_handed_over_and_cannot_be_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    directory = tmp_path / "passing"
    directory.mkdir()
    (directory / FILE_NAME).write_bytes(b"no holdings")
    assert heir("", Legacy(directory)).load().count() == 0
    assert "what the director before this one knew is lost" in caplog.text
    assert not directory.exists()


def test_a_lock_of_another_directory_is_given_up(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = keeper(tmp_path / "a")
    first.load()
    second = heir(tmp_path / "b", Legacy(None, os.dup(first.lock)))
    second.load()
    assert os.path.samestat(os.fstat(second.lock), (tmp_path / "b" / "lock").stat())
    asyncio.run(first.close())
    asyncio.run(second.close())
    assert once(keeper(tmp_path / "a")).count() == 0  # nobody holds it


def test_taken_back_it_is_saved_again(tmp_path: Path):
    async def scenario() -> None:
        kept = keeper(tmp_path)
        holdings = kept.load()
        await kept.hand_over()
        kept.take_back()
        holdings.add(KEY, 1, LATER, Source.SEEN)
        await kept.close()

    asyncio.run(scenario())
    assert once(keeper(tmp_path)).count() == 1

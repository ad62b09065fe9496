"""The saved file: what was saved is loaded, and what is not as it was saved is refused whole."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from hashlib import blake2b, md5
from pathlib import Path

import pytest

from cachelb import statefile
from cachelb.cluster import saved
from cachelb.cluster.holdings import BUCKETS, Holding, Holdings, Source, mask_of
from cachelb.cluster.saved import FILE_NAME, load, parse_state, save, save_aside
from cachelb.statefile import BadState, StateError

NOW = 1_800_000_000
LATER = NOW + 3600
ALL = mask_of(range(4096))
NAMES = {0: "cache1", 1: "cache2", 5: "zwölf"}
NODES = {name: node for node, name in NAMES.items()}
HEADER = 64


def key(number: int) -> bytes:
    return md5(b"%d" % number, usedforsecurity=False).digest()


def filled(count: int = 300) -> Holdings:
    holdings = Holdings()
    for number in range(count):
        holdings.add(key(number), (0, 1, 5)[number % 3], LATER + number, Source(number % 3))
    return holdings


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A saved file."""
    directory = tmp_path_factory.mktemp("state")
    save(directory, filled(), NAMES, NOW)
    return (directory / FILE_NAME).read_bytes()


def resealed(data: bytes | bytearray) -> bytes:
    """With the right checksum, as a program with a mistake would write it."""
    data = bytearray(data)
    data[48:64] = bytes(16)
    body = blake2b(data[HEADER:], digest_size=16).digest()
    data[48:64] = blake2b(bytes(data[:HEADER]) + body, digest_size=16).digest()
    return bytes(data)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    before = filled()
    save(tmp_path, before, NAMES, NOW)
    after = load(tmp_path, NODES)
    assert after is not None
    lowered = [[held._replace(source=Source.SEEN) for held in before.holders(key(number))] for number in range(300)]
    assert [after.holders(key(number)) for number in range(300)] == lowered
    assert (before.as_of, after.as_of) == (0, NOW)
    assert [after.count(node) for node in (None, 0, 1, 5, 7)] == [300, 100, 100, 100, 0]
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_nodes_are_found_again_by_name_and_others_are_forgotten(tmp_path: Path) -> None:
    save(tmp_path, filled(), {0: "cache1", 1: "cache2"}, NOW)  # node 5 has no name
    after = load(tmp_path, {"cache2": 0, "new": 1, "cache1": 4095})
    assert after is not None
    assert after.holders(key(1)) == [Holding(0, LATER + 1, Source.SEEN)]
    assert after.holders(key(0)) == [Holding(4095, LATER, Source.SEEN)]
    assert after.holders(key(2)) == []
    assert after.count() == 200
    assert after.expire(NOW, 1 << 40) == 100
    after.add(key(2), 1, LATER, Source.SEEN)
    assert after.count(1) == 1


def test_a_loaded_table_goes_on_like_any_other(tmp_path: Path) -> None:
    save(tmp_path, filled(), NAMES, NOW)
    after = load(tmp_path, {})
    assert after is not None
    assert after.count() == 0
    for node in range(4):
        after.add(key(0), node, LATER, Source.SEEN)
    assert after.expire(NOW, 1 << 40) == 300
    assert {held.node for held in after.holders(key(0))} == {0, 1, 2, 3}


def test_there_may_be_nothing_to_load(tmp_path: Path) -> None:
    assert load(tmp_path, NODES) is None
    assert load(tmp_path / "nowhere", NODES) is None


def test_an_empty_table_can_be_saved(tmp_path: Path) -> None:
    save(tmp_path, Holdings(), {}, NOW)
    after = load(tmp_path, NODES)
    assert after is not None
    assert after.count() == 0


def test_a_smaller_limit_keeps_what_is_fresh_longest(tmp_path: Path) -> None:
    save(tmp_path, filled(), NAMES, NOW)
    after = load(tmp_path, NODES, keys_limit=10)
    assert after is not None
    assert after.count() == 10


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    save(tmp_path, filled(100), NAMES, NOW)
    (tmp_path / f"{FILE_NAME}.new").write_bytes(b"left by a crash")
    save(tmp_path, filled(200), NAMES, NOW)
    after = load(tmp_path, NODES)
    assert after is not None
    assert after.count() == 200
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_failure_to_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, filled(100), NAMES, NOW)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(statefile.os, "fsync", full)
    with pytest.raises(StateError, match=r"cannot save .*holdings: No space left on device"):
        save(tmp_path, filled(200), NAMES, NOW)
    with pytest.raises(StateError, match="No space left"):
        asyncio.run(save_aside(tmp_path, filled(200), NAMES, NOW))
    assert os.listdir(tmp_path) == [FILE_NAME]
    after = load(tmp_path, NODES)
    assert after is not None
    assert after.count() == 100


def test_a_directory_that_is_not_there_or_not_readable_is_told(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"cannot save .*No such file or directory"):
        save(tmp_path / "nowhere", filled(1), NAMES, NOW)
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(StateError, match=r"cannot read .*Is a directory"):
        load(tmp_path, NODES)


def test_an_event_loop_goes_on_while_a_table_that_changes_is_saved(tmp_path: Path) -> None:
    holdings = filled(20_000)
    turns = 0

    async def main() -> None:
        nonlocal turns
        task = asyncio.ensure_future(save_aside(tmp_path, holdings, NAMES, NOW))
        while not task.done():
            await asyncio.sleep(0.0002)  # without a pause the writing thread waits for the interpreter's lock each time
            holdings.add(key(1_000_000 + turns), 0, LATER, Source.SEEN)
            holdings.remove(key(turns), (0, 1, 5)[turns % 3])
            turns += 1
        await task

    asyncio.run(main())
    assert turns > 20
    after = load(tmp_path, NODES)
    assert after is not None
    kept = range(turns, 20_000)  # untouched all the time
    assert all(after.holds(key(number), NOW, ALL) for number in kept)
    assert abs(after.count() - 20_000) <= turns


def test_a_node_forgotten_while_it_is_saved_is_not_remembered(tmp_path: Path) -> None:
    holdings = filled()

    async def main() -> None:
        task = asyncio.ensure_future(save_aside(tmp_path, holdings, NAMES, NOW))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        holdings.forget_node(1)
        holdings.expire(NOW, 1 << 40)
        holdings.add(key(1), 1, LATER, Source.SEEN)  # maybe in the very slot it had
        await task

    asyncio.run(main())
    after = load(tmp_path, NODES)
    assert after is not None
    assert (after.count(0), after.count(1), after.count(5)) == (100, 0, 100)


def test_a_cancelled_save_leaves_the_old_file(tmp_path: Path) -> None:
    save(tmp_path, filled(10), NAMES, NOW)

    async def main() -> None:
        task = asyncio.ensure_future(save_aside(tmp_path, filled(200), NAMES, NOW))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    after = load(tmp_path, NODES)
    assert after is not None
    assert after.count() == 10


@pytest.mark.parametrize("size", [0, 1, 15, 16, 40, 63, 64, 65, 1000, -1])
def test_a_file_that_was_cut_short_is_refused(image: bytes, size: int) -> None:
    with pytest.raises(BadState, match=r"cut short|empty|not a file"):
        parse_state(image[:size], NODES)


def test_a_longer_file_is_refused(image: bytes) -> None:
    with pytest.raises(BadState, match="bytes instead of"):
        parse_state(image + b"\0", NODES)


def test_any_byte_that_changed_is_noticed(image: bytes) -> None:
    body = range(HEADER, len(image), len(image) // 40)
    for at in [*range(HEADER), *body, len(image) - 1]:
        data = bytearray(image)
        data[at] ^= 1 << at % 8
        with pytest.raises(BadState):
            parse_state(bytes(data), NODES)


@pytest.mark.parametrize(
    ("at", "kind", "value", "text"),
    [
        (0, "16s", b"another program.", "not a file of holdings"),
        (16, "<H", 2, "version 2, and only version 1"),
        (18, "<H", 24, "24-byte records"),
        (20, "<I", 65536, "65536 buckets"),
        (24, "<Q", 299, "bytes instead of"),
        (24, "<Q", (1 << 64) - 1, "cut short"),
        (32, "<I", 0, "bytes instead of"),
        (48, "16s", bytes(16), "checksum"),
    ],
)
def test_a_header_that_does_not_fit_is_told(image: bytes, at: int, kind: str, value: object, text: str) -> None:
    data = bytearray(image)
    struct.pack_into(kind, data, at, value)
    with pytest.raises(BadState, match=text):
        parse_state(bytes(data), NODES)


def test_counts_that_do_not_add_up_are_refused(image: bytes) -> None:
    data = bytearray(image)
    counts_at = HEADER + 300 * 20
    struct.pack_into("<I", data, counts_at, struct.unpack_from("<I", data, counts_at)[0] + 1)
    with pytest.raises(BadState, match="300 records, but the buckets have 301"):
        parse_state(resealed(data), NODES)


@pytest.mark.parametrize(
    "names",
    [
        b"",
        b"{}x",
        b"[1]",
        b"[[1]]",
        b'[["1", "cache1"]]',
        b"[[true, \"cache1\"]]",
        b'[[4096, "cache1"]]',
        b'[[-1, "cache1"]]',
        b"[[1, 2]]",
        b'[[1, "cache1"], [2, "cache1"]]',
        b'[[[], "cache1"]]',
        b"\xff",
        b"[" * 100_000,
        b'[[' + b"9" * 5000 + b', "a"]]',
    ],
)  # fmt: skip
def test_names_that_make_no_sense_are_refused(image: bytes, names: bytes) -> None:
    data = bytearray(image[: HEADER + 300 * 20 + 4 * BUCKETS] + names)
    struct.pack_into("<I", data, 32, len(names))
    with pytest.raises(BadState, match=r"name|slot"):
        parse_state(resealed(data), NODES)


def test_the_sealing_of_these_tests_is_the_real_one(image: bytes) -> None:
    assert resealed(image) == image


def test_a_refusal_names_the_file_and_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(BadState, match=f"{path}: not a file of holdings"):
        load(tmp_path, NODES)
    assert path.read_bytes() == b"#!/bin/sh\n"


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "FILE_LIMIT_BYTES", 1000)
    save(tmp_path, filled(10), NAMES, NOW)
    with pytest.raises(BadState, match="more than 1000 bytes"):
        load(tmp_path, NODES)


@pytest.mark.slow
def test_half_a_million_keys_are_saved_and_loaded_in_moments(tmp_path: Path) -> None:
    holdings = Holdings()
    keys = os.urandom(16 * 500_000)
    for at in range(0, len(keys), 16):
        holdings.add(keys[at : at + 16], at % 3, LATER, Source.SEEN)
    start = time.perf_counter()
    save(tmp_path, holdings, NAMES, NOW)
    after = load(tmp_path, NODES)
    assert time.perf_counter() - start < 5
    assert after is not None
    assert all(after.holds(keys[at : at + 16], NOW, ALL) for at in range(0, len(keys), 16 * 997) if at % 3 != 2)


def test_a_full_disk_is_told_and_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, filled(10), NAMES, NOW)
    before = (tmp_path / FILE_NAME).read_bytes()
    real = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda fd, mode: (os.close(fd), real(os.open("/dev/full", os.O_WRONLY), mode))[1])
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    for saving in (lambda: save(tmp_path, filled(), NAMES, NOW), lambda: asyncio.run(save_aside(tmp_path, filled(), NAMES, NOW))):
        with pytest.raises(StateError, match="No space left"):
            saving()
        assert os.listdir(tmp_path) == [FILE_NAME]
        assert (tmp_path / FILE_NAME).read_bytes() == before

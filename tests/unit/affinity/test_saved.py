"""The file of templates: what is read is what was written, and nothing of a file that is not whole."""

from __future__ import annotations

import asyncio
import json
import os
import struct
from hashlib import blake2b
from pathlib import Path

import pytest

from cachelb import statefile
from cachelb.affinity.saved import FILE_NAME, load, parse_state, save, save_aside
from cachelb.affinity.templates import NOBODY, SHARDS, Template, Templates
from cachelb.routing.template import Group, packed
from cachelb.statefile import BadState, StateError

NOW, WALL = 5000.0, 1_795_000_000.0
SLOTS = {"a": 0, "b": 1, "c": 2}
NAMES = {0: "a", 1: "b", 2: "c"}
GROUPS = (Group("shop"), Group("mail", 24, 48, 600.0))


def table(*groups: Group) -> Templates:
    subject = Templates()
    subject.configure(groups or GROUPS)
    return subject


def filled() -> Templates:
    subject = table()
    for number in range(3000):
        ip = packed(f"10.{number % 7}.{number % 251}.{number % 101}" if number % 3 else f"2001:db8:{number:x}::1")
        for shelf in subject.shelves.values():
            subject.put(shelf, shelf.group.key(ip), number % 3, 1 if number % 5 == 0 else NOBODY, NOW - 300 + number / 10)
    return subject


def contents(subject: Templates) -> dict[tuple[str, int], Template]:
    return {(n, key): t for n, shelf in subject.shelves.items() for shard in range(SHARDS) for key, t in shelf.items(shard)}


def saved(directory: Path) -> bytes:
    save(directory, filled(), NAMES, NOW, WALL)
    return (directory / FILE_NAME).read_bytes()


@pytest.mark.parametrize("aside", [False, True])
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, aside: bool):
    before, after = filled(), table()
    if aside:
        asyncio.run(save_aside(tmp_path, before, NAMES, NOW, WALL))
    else:
        save(tmp_path, before, NAMES, NOW, WALL)
    assert load(tmp_path, after, SLOTS, NOW, WALL) == before.size == after.size
    wanted, found = contents(before), contents(after)
    assert found.keys() == wanted.keys()
    for key, template in found.items():
        assert template[:2] == wanted[key][:2]
        assert abs(template.used - wanted[key].used) <= 1.1  # whole seconds
    order = [t.used for t in contents(after).values()]
    assert order != []
    for shelf in after.shelves.values():
        for shard in range(SHARDS):
            times = [t.used for _, t in shelf.items(shard)]
            assert times == sorted(times)
    assert os.listdir(tmp_path) == [FILE_NAME]


@pytest.mark.parametrize("netmask", [32, 16])
def test_a_reload_in_the_middle_of_it(tmp_path: Path, netmask: int):
    """Another time: all is saved.  Other clients: what was theirs before is of no use, and no other group suffers."""
    before, after = filled(), Templates()
    groups = (Group("shop", netmask, timeout_s=1801.0), GROUPS[1])

    async def main() -> None:
        saving = asyncio.create_task(save_aside(tmp_path, before, NAMES, NOW, WALL))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not saving.done()
        before.configure(groups)
        await saving

    asyncio.run(main())
    after.configure(groups)
    load(tmp_path, after, SLOTS, NOW, WALL)
    assert contents(after).keys() == contents(before).keys()
    assert {name for name, _ in contents(after)} == ({"mail"} if netmask == 16 else {"mail", "shop"})


def test_time_has_passed_by_the_wall_clock_and_another_clock_counts_now(tmp_path: Path):
    save(tmp_path, filled(), NAMES, NOW, WALL)
    after = table()
    assert load(tmp_path, after, SLOTS, 3.0, WALL + 500.0) < filled().size
    ages = [3.0 - template.used for (name, _), template in contents(after).items() if name == "mail"]
    assert ages
    assert max(ages) < 600.0
    assert load(tmp_path, table(), SLOTS, 3.0, WALL + 100_000.0) == 0
    assert load(tmp_path, table(), SLOTS, 3.0, WALL - 1000.0) == filled().size  # the clock was set back


def test_nodes_are_found_by_name_and_groups_by_name_and_netmask(tmp_path: Path):
    save(tmp_path, filled(), NAMES, NOW, WALL)
    after = table(Group("shop"), Group("mail", 16, 48, 600.0), Group("new"))
    load(tmp_path, after, {"c": 7, "b": 9}, NOW, WALL)
    assert {name: shelf.size for name, shelf in after.shelves.items() if shelf.size} == {"shop": after.size}
    assert after.shelves["shop"].counts.keys() == {7, 9}
    assert {template.home for template in contents(after).values()} == {9, NOBODY}


def test_no_file_is_no_template(tmp_path: Path):
    assert load(tmp_path, table(), SLOTS, NOW, WALL) == 0


def sealed(data: bytes) -> bytes:
    header = data[:48] + bytes(16)
    body = blake2b(data[64:], digest_size=16).digest()
    return header[:48] + blake2b(header + body, digest_size=16).digest() + data[64:]


def test_every_cut_and_every_change_is_refused_and_nothing_taken_over(tmp_path: Path):
    data = saved(tmp_path)
    cuts = [data[:size] for size in (0, 1, 15, 16, 63, 64, 65, 500, len(data) - 1)] + [data + b"x"]
    places = (0, 16, 18, 20, 24, 28, 40, 50, 63, 64, 100, len(data) - 1)
    changes = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in places]
    for bad in (*cuts, *changes):
        after = table()
        with pytest.raises(BadState):
            parse_state(bad, after, SLOTS, NOW, WALL)
        assert after.size == 0


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (b"{", "names of groups"),
        (b"[]", "names of groups"),
        (b'{"groups": [["shop", 32, 64]], "nodes": []}', "names of groups"),
        (b'{"groups": [["shop", 32, 64, 1]], "nodes": [5]}', "is no text"),
        (b'{"groups": [["shop", 32, 64, -1]], "nodes": ["a"]}', "not as it should be"),
        (b'{"groups": [["shop", 32, 64, 2]], "nodes": ["a"]}', "another number of records"),
        (b'{"groups": [["shop", 32, 64, 1]], "nodes": []}', "names no node"),
    ],
)
def test_a_file_that_a_mistaken_program_sealed_is_refused(tail: bytes, says: str):
    record = struct.pack("<16sIHH", bytes(16), 5, 0, 0xFFFF)
    header = struct.pack("<16sHHIIQ12x16s", b"cachelb affinity", 1, 24, 1, len(tail), 5, bytes(16))
    with pytest.raises(BadState, match=says):
        parse_state(sealed(header + record + tail), table(), SLOTS, NOW, WALL)


def test_a_later_version_and_a_file_that_is_too_large_are_named(tmp_path: Path):
    data = saved(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(sealed(data[:16] + b"\x02\0" + data[18:]))
    with pytest.raises(BadState, match=r"templates: version 2, and only version 1 is understood"):
        load(tmp_path, table(), SLOTS, NOW, WALL)
    os.truncate(tmp_path / FILE_NAME, 100 << 20)
    with pytest.raises(BadState, match="more than 67108864 bytes"):
        load(tmp_path, table(), SLOTS, NOW, WALL)


def test_a_failure_to_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = saved(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(statefile.os, "fsync", full)
    with pytest.raises(StateError, match=r"cannot save .*templates: No space left on device"):
        save(tmp_path, filled(), NAMES, NOW, WALL)
    with pytest.raises(StateError, match="No space left"):
        asyncio.run(save_aside(tmp_path, filled(), NAMES, NOW, WALL))
    assert os.listdir(tmp_path) == [FILE_NAME]
    assert (tmp_path / FILE_NAME).read_bytes() == data


def test_the_tail_says_which_groups_and_nodes_there_are(tmp_path: Path):
    data = saved(tmp_path)
    tail = json.loads(data[data.index(b'{"groups"') :])
    assert tail["nodes"] == ["a", "b", "c"]
    assert [group[:3] for group in tail["groups"]] == [["shop", 32, 64], ["mail", 24, 48]]

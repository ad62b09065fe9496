"""What the process that builds does: it keeps the right keys, tells the truth, and ends when nobody wants it."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachelb.cluster import build as module
from cachelb.cluster.build import Order, gather, unite, work
from cachelb.cluster.builder import frame, order_for
from cachelb.cluster.holdings import BUCKETS, Holdings, Source, mask_of
from digest import build, pack_digest, parse_digest

NOW = 1_800_000_000
LATER = NOW + 3600
ALL = mask_of(range(4096))


def some_keys(count: int, seed: int = 0) -> list[bytes]:
    data = random.Random(seed).randbytes(16 * count)
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def filled(keys: list[bytes], nodes: int = 3) -> Holdings:
    holdings = Holdings()
    for number, key in enumerate(keys):
        holdings.add(key, number % nodes, LATER, Source(number % 3))
    return holdings


def stream(holdings: Holdings, step: int) -> io.BytesIO:
    return io.BytesIO(b"".join(frame(holdings, first, step) for first in range(0, BUCKETS, step)))


def gathered(holdings: Holdings, live: int = ALL, fresh_after: int = NOW) -> dict[int, list[bytes]]:
    """Node -> its keys, sorted."""
    order = order_for(holdings, live, fresh_after, 8)
    _, keys = gather(stream(holdings, order.step), order)
    return {node: sorted(cut(bytes(some))) for node, some in keys.items()}


def test_every_live_node_s_keys_arrive_whole_whatever_told_of_them():
    keys = some_keys(1000)
    holdings = filled(keys)
    assert gathered(holdings) == {node: sorted(keys[node::3]) for node in range(3)}
    assert gathered(holdings, mask_of([2, 7])) == {2: sorted(keys[2::3])}
    assert gathered(holdings, 0) == {}


def test_what_is_fresh_for_long_enough_counts_and_what_nobody_knows_that_of():
    holdings = Holdings()
    for key, expires in zip(some_keys(4), (NOW - 1, NOW, NOW + 1, 0), strict=True):
        holdings.add(key, 0, expires, Source.STORE_LOG)
    assert gathered(holdings) == {0: sorted(some_keys(4)[2:])}


def test_a_forgotten_node_has_nothing_even_before_its_records_are_collected():
    holdings = filled(some_keys(30))
    holdings.forget_node(1)
    holdings.add(some_keys(1)[0], 1, LATER, Source.SEEN)
    assert {node: len(keys) for node, keys in gathered(holdings).items()} == {0: 10, 1: 1, 2: 10}


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 4095), st.sampled_from([0, NOW, LATER]))),
)
def test_it_is_what_the_table_itself_says_its_keys_are(found: list[tuple[bytes, int, int]]):
    holdings = Holdings()
    for key, node, expires in found:
        holdings.add(key, node, expires, Source.STORE_LOG)
    some = {node for _, node, _ in found[::2]}
    expected = {node: sorted(cut(b"".join(holdings.keys(node, NOW)))) for node in some}
    assert gathered(holdings, mask_of(some)) == expected


def cut(keys: bytes) -> Iterator[bytes]:
    return (keys[at : at + 16] for at in range(0, len(keys), 16))


@pytest.mark.parametrize("step", [4, 64, 1024, BUCKETS])
def test_the_size_of_the_slices_changes_nothing(step: int):
    holdings = filled(some_keys(500))
    order = order_for(holdings, ALL, NOW, 8)
    order = Order(order.bits_per_entry, order.fresh_after, order.nodes, step)
    records, keys = gather(stream(holdings, step), order)
    assert records == 500
    assert sorted(cut(b"".join(keys.values()))) == sorted(some_keys(500))


@pytest.mark.parametrize("missing", [1, 20, 4096, 262_144])
def test_a_stream_that_ends_early_is_no_digest(missing: int):
    holdings = filled(some_keys(500))
    order = order_for(holdings, ALL, NOW, 8)
    data = stream(holdings, order.step).getvalue()
    with pytest.raises(EOFError):
        gather(io.BytesIO(data[:-missing]), order)


def test_what_is_said_of_a_digest_is_true_of_it():
    keys = {4: b"".join(some_keys(900)), 0: b"".join(some_keys(100, 1)), 9: b""}
    digest, built = unite(Order(8, NOW, [], 1024), 1234, keys)
    assert digest == build(keys[4] + keys[0], 8)
    assert built.records == 1234
    assert (built.keys, built.capacity, built.bits_per_entry, built.size_bytes) == (1000, 1000, 8, 1128)
    assert (built.fill, built.false_positives) == (digest.mask.fill, digest.mask.false_positives)
    assert [(node, count) for node, count, _ in built.nodes] == [(4, 900), (0, 100), (9, 0)]
    assert [fill for _, _, fill in built.nodes] == [pytest.approx(0.362, abs=0.01), pytest.approx(0.049, abs=0.005), 0.0]


def test_more_bits_than_any_squid_could_read_are_fewer():
    assert module._bits_per_entry(100_000_000, 127) == 21
    assert module._bits_per_entry(100_000_000, 8) == 8
    assert module._bits_per_entry(5_000_000, 127) == 127
    assert module._bits_per_entry(10, 1) == 1


@pytest.mark.parametrize("bits_per_entry", [5, 8, 16])
def test_bit_for_bit_it_is_what_real_children_accept(bits_per_entry: int):
    """They are given such digests in tests/squid/test_digest.py."""
    keys = some_keys(3000)
    holdings = filled(keys)
    order = order_for(holdings, ALL, NOW, bits_per_entry)
    digest, _ = unite(order, *gather(stream(holdings, order.step), order))
    assert pack_digest(digest) == pack_digest(build(b"".join(keys), bits_per_entry))


def test_peak_memory_is_this_process_s():
    before = module._peak_bytes()
    data = b"x" * (before + (32 << 20))
    assert module._peak_bytes() - before > 24 << 20
    assert data


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.memfd_create("digest")
    yield number
    os.close(number)


def said_to(data: bytes, fd: int) -> dict[str, object]:
    """What `work` says when the director sends this and then no more."""
    ours, theirs = socket.socketpair()
    with ours:
        worker = threading.Thread(target=work, args=(theirs, fd))
        worker.start()
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as stream:
            said: dict[str, object] = json.loads(stream.readline())
        worker.join()
    return said


def test_an_order_is_done_and_told(fd: int):
    keys = some_keys(300)
    holdings = filled(keys)
    order = order_for(holdings, ALL, NOW, 8)
    said = said_to(json.dumps(asdict(order)).encode() + b"\n" + stream(holdings, order.step).getvalue(), fd)
    assert parse_digest(os.pread(fd, 1 << 16, 0)) == build(b"".join(keys), 8)
    assert (said["keys"], said["size_bytes"]) == (300, os.fstat(fd).st_size)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "JSONDecodeError: Expecting value"),
        (b"{}\n", "TypeError: Order.__init__() missing 4 required"),
        (
            b'{"bits_per_entry": 8, "fresh_after": 1, "nodes": [], "step": 1024}\nabc',
            "EOFError: the stream ended 4093 bytes early",
        ),
        (b"hello\n" + bytes(1 << 20), "JSONDecodeError: Expecting value"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(data: bytes, problem: str, fd: int):
    assert str(said_to(data, fd)["problem"]).startswith(problem)
    assert os.fstat(fd).st_size == 0


def test_the_process_ends_when_the_director_is_gone():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen([sys.executable, "-m", module.__name__], stdin=theirs.fileno())
    theirs.close()
    ours.close()
    assert process.wait(20) == 0

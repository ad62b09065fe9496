from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.simulate.kinds import KIND_BITS, LOOK, NEVER, NO_HIT, NOT_STORED, RENEW, STORE
from cachelb.simulate.store import BLOCK_BYTES, SQUIDS, Limits, Stores


def serve(stores: Stores, *requests: tuple[int, int, int], nodes: Sequence[int] = (0,) * 99) -> int:
    """Requests as (URL, size, kind); how many were hits."""
    before = stores.hits
    stores.serve([r[0] for r in requests], [r[1] << KIND_BITS | r[2] for r in requests], nodes)
    return stores.hits - before


def test_what_was_stored_is_a_hit():
    stores = Stores([10 * BLOCK_BYTES], SQUIDS)
    assert serve(stores, (1, 100, STORE)) == 0
    assert serve(stores, (1, 120, STORE), (1, 0, LOOK)) == 2
    assert (stores.hit_bytes, stores.sent, stores.requests) == (120, [220], [3])


@pytest.mark.parametrize(("kind", "hit", "stored"), [(STORE, 1, 1), (LOOK, 1, 0), (RENEW, 0, 1), (NEVER, 0, 0)])
def test_each_kind_hits_and_stores_as_it_should(kind: int, hit: int, stored: int):
    stores = Stores([10 * BLOCK_BYTES], SQUIDS)
    assert serve(stores, (7, 1, kind)) == 0
    assert stores.held() == [stored]
    serve(stores, (7, 1, STORE))
    assert serve(stores, (7, 1, kind)) == hit
    assert stores.held() == [1]


def test_the_least_recently_used_goes_first():
    stores = Stores([3 * BLOCK_BYTES], SQUIDS)
    serve(stores, (1, 1, STORE), (2, 1, STORE), (3, 1, STORE))
    assert serve(stores, (1, 1, STORE)) == 1
    serve(stores, (4, 2 * BLOCK_BYTES, STORE))  # 2 and 3 go
    assert stores.removed == 2
    assert [serve(stores, (url, 1, LOOK)) for url in (1, 2, 3, 4)] == [1, 0, 0, 1]
    assert stores.used() == [3 * BLOCK_BYTES]


def test_an_object_that_is_fetched_anew_takes_its_new_size():
    stores = Stores([9 * BLOCK_BYTES], SQUIDS)
    serve(stores, (1, 5 * BLOCK_BYTES, STORE), (1, 1, RENEW))
    assert (stores.used(), stores.held()) == ([BLOCK_BYTES], [1])


def test_sizes_are_limited():
    stores = Stores([1 << 30], Limits(100, 5000))
    serve(stores, (1, 99, STORE), (2, 100, STORE), (3, 5000, STORE), (4, 5001, STORE))
    assert [serve(stores, (url, 0, LOOK)) for url in (1, 2, 3, 4)] == [0, 1, 1, 0]


def test_an_object_larger_than_the_store_does_not_stay():
    stores = Stores([BLOCK_BYTES], SQUIDS)
    assert serve(stores, (1, 2 * BLOCK_BYTES, STORE), (1, 2 * BLOCK_BYTES, STORE)) == 0
    assert stores.used() == [0]


def test_nodes_keep_their_own():
    stores = Stores([1 << 20] * 2, SQUIDS)
    assert serve(stores, (1, 1, STORE), (1, 1, STORE), nodes=[0, 1]) == 0
    assert stores.duplicates() == 1.0
    serve(stores, (2, 1, STORE), (3, 1, STORE), nodes=[0, 0])
    assert stores.duplicates() == 0.5
    assert stores.held() == [3, 1]
    assert stores.requests == [3, 1]


def test_a_copy_with_one_more_node_goes_its_own_way():
    stores = Stores([1 << 20], SQUIDS)
    serve(stores, (1, 1, STORE))
    more = stores.with_one_more(1 << 20)
    assert serve(more, (1, 1, STORE), (1, 1, STORE), nodes=[0, 1]) == 1
    assert (more.held(), stores.held(), stores.hits) == ([1, 1], [1], 0)
    assert more.requests == [1, 1]


class SlowStore:
    """The same, written for reading."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.objects: list[tuple[int, int]] = []  # the least recently used first

    def serve(self, url: int, size: int, kind: int) -> bool:
        found = [entry for entry in self.objects if entry[0] == url]
        if found and not kind & NO_HIT:
            self.objects.remove(found[0])
            self.objects.append(found[0])
            return True
        if not kind & NOT_STORED:
            self.objects = [entry for entry in self.objects if entry[0] != url] + [(url, -(-size // BLOCK_BYTES) * BLOCK_BYTES)]
            while sum(room for _, room in self.objects) > self.capacity:
                self.objects.pop(0)
        return False


@given(
    requests=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4 * BLOCK_BYTES), st.integers(0, 3)), max_size=80),
    blocks=st.integers(0, 12),
)
def test_it_does_what_the_slow_one_does(requests: list[tuple[int, int, int]], blocks: int):
    stores, slow = Stores([blocks * BLOCK_BYTES], SQUIDS), SlowStore(blocks * BLOCK_BYTES)
    assert [bool(serve(stores, request)) for request in requests] == [slow.serve(*request) for request in requests]
    assert stores.used() == [sum(room for _, room in slow.objects)]
    assert stores.held() == [len(slow.objects)]

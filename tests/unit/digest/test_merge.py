"""Uniting digests, and building them from keys."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest import merge
from digest.key import store_key
from digest.merge import FILL_LIMIT, GeometryMismatch, build, build_union, digest_of, geometry_for, union
from digest.wire import Digest, Geometry, pack_digest, parse_digest

VECTORS = Path(__file__).parents[2] / "vectors" / "digest"


def some_keys(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(16 * count)


def test_the_digest_that_a_real_child_accepted_is_built_again_bit_for_bit():
    urls = {url for path in VECTORS.glob("*-urls.txt") for url in path.read_bytes().split()}
    ours = digest_of(b"".join(map(store_key, urls)), Geometry(500, 5))
    assert pack_digest(ours) == (VECTORS / "digest-merged-from-keys.bin").read_bytes()


def test_five_thousand_urls_make_the_captured_synthetic_digest():
    keys = b"".join(store_key(b"http://127.0.0.10:8000/in/%d" % number) for number in range(5000))
    assert pack_digest(digest_of(keys, Geometry(5000, 5))) == (VECTORS / "digest-synthetic-5000entries.bin").read_bytes()


@given(st.lists(st.lists(st.binary(min_size=16, max_size=16), max_size=5), min_size=1, max_size=5), st.integers(1, 127))
def test_a_union_is_the_digest_of_all_keys(parts: list[list[bytes]], bits_per_entry: int):
    geometry = Geometry(10, bits_per_entry)
    digests = {f"cache{number}": digest_of(b"".join(keys), geometry) for number, keys in enumerate(parts)}
    before = {name: pack_digest(digest) for name, digest in digests.items()}
    assert union(digests) == digest_of(b"".join(key for keys in parts for key in keys), geometry)
    assert {name: pack_digest(digest) for name, digest in digests.items()} == before


def test_real_digests_of_one_geometry_are_united():
    one, other = (parse_digest((VECTORS / f"digest-node{number}-body.bin").read_bytes()) for number in (1, 3))
    both = union({"node1": one, "node3": other})
    for number in (1, 3):
        urls = (VECTORS / f"digest-node{number}-urls.txt").read_bytes().split()
        assert all(both.mask.contains(store_key(url)) for url in urls)
    assert both.is_useless  # as squid.conf's 5 bits per entry make it for two nodes already


def test_unequal_geometries_are_named_with_their_nodes():
    a, b, c = Geometry(100, 5), Geometry(100, 5), Geometry(101, 5)
    with pytest.raises(GeometryMismatch) as problem:
        union({"cache1": Digest.empty(a), "cache2": Digest.empty(b), "cache3": Digest.empty(c)})
    assert str(problem.value) == ("cache3 has capacity 101 at 5 bits per entry, but cache1 has capacity 100 at 5 bits per entry")
    assert (problem.value.first, problem.value.second, problem.value.geometries) == ("cache1", "cache3", (a, c))


def test_masks_of_one_size_are_not_united_when_they_were_made_for_different_ones():
    with pytest.raises(GeometryMismatch):
        union({"a": Digest.empty(Geometry(40, 1)), "b": Digest.empty(Geometry(8, 5))})


def test_a_union_counts_without_trust():
    geometry = Geometry(1, 8)
    empty = Digest.empty(geometry).mask
    united = union({"a": Digest(geometry, empty, -5, 2**31 - 1), "b": Digest(geometry, empty, 7, 2)})
    assert (united.count, united.deleted) == (7, 2**31 - 1)
    pack_digest(united)


def test_a_union_of_nothing_is_our_own_mistake():
    with pytest.raises(ValueError, match="no digests"):
        union({})


@pytest.mark.parametrize("bits_per_entry", [1, 2, 5, 6, 7, 8, 16, 127])
@pytest.mark.parametrize("count", [0, 1, 1000, 5000])
def test_what_is_built_is_less_than_half_full_and_has_everything(count: int, bits_per_entry: int):
    keys = some_keys(count)
    digest = build(keys, bits_per_entry)
    assert digest.mask.fill < 0.5
    assert digest.mask.contains_many(keys) == b"\1" * count
    assert (digest.count, digest.geometry.bits_per_entry) == (count, bits_per_entry)
    assert parse_digest(pack_digest(digest)) == digest


def test_from_seven_bits_on_the_capacity_is_the_number_of_keys():
    assert [geometry_for(100_000, bits).capacity for bits in (7, 8, 16)] == [100_000] * 3
    assert geometry_for(100_000, 5).capacity == pytest.approx(122_300, rel=0.01)


def test_even_an_empty_digest_has_room_for_a_thousand_keys():
    assert {geometry_for(count, 8) for count in (0, 1, 999, 1000)} == {Geometry(1000, 8)}


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 400), max_size=5), st.sampled_from([1, 5, 8, 127]))
def test_a_union_built_of_parts_is_the_digest_of_all_their_keys(counts: dict[int, int], bits_per_entry: int):
    parts = {node: some_keys(count, node) for node, count in counts.items()}
    digest, fills = build_union(parts, bits_per_entry)
    assert digest == build(b"".join(parts.values()), bits_per_entry)
    assert fills == {node: digest_of(keys, digest.geometry).mask.fill for node, keys in parts.items()}


def test_with_too_many_parts_for_masks_of_their_own_the_digest_is_bit_for_bit_the_same(monkeypatch: pytest.MonkeyPatch):
    parts = {node: some_keys(700, node) for node in "abc"}
    digest, fills = build_union(parts, 8)
    assert len(fills) == 3
    monkeypatch.setattr(merge, "PARTS_LIMIT_BYTES", 3 * digest.geometry.mask_bytes - 1)
    assert build_union(parts, 8) == (digest, {})


def test_a_key_of_two_parts_counts_twice_and_sets_its_bits_once():
    keys = some_keys(2000)
    digest, fills = build_union({"a": keys, "b": keys}, 8)
    assert digest.count == 4000
    assert fills == {"a": digest.mask.fill, "b": digest.mask.fill}


def test_parts_that_are_too_full_together_grow_together():
    bits = geometry_for(1000, 5).mask_bytes * 8
    chosen = b"".join((number % bits).to_bytes(4, "big") for number in range(4000))
    digest, fills = build_union({"a": chosen[:8000], "b": chosen[8000:]}, 5)
    assert digest == build(chosen, 5)
    assert sum(fills.values()) == pytest.approx(digest.mask.fill)
    assert digest.mask.fill < FILL_LIMIT


def test_keys_chosen_to_fill_the_mask_only_make_it_grow():
    geometry = geometry_for(1000, 5)
    bits = geometry.mask_bytes * 8
    chosen = b"".join((number % bits).to_bytes(4, "big") for number in range(4000))
    assert digest_of(chosen, geometry).mask.fill > 0.6
    grown = build(chosen, 5)
    assert grown.mask.fill < 0.5
    assert grown.mask.contains_many(chosen) == b"\1" * 1000


def test_what_no_squid_could_read_is_not_built():
    with pytest.raises(ValueError, match="128 bits per entry"):
        build(b"", 128)
    with pytest.raises(ValueError, match="0 bits per entry"):
        build(b"", 0)
    with pytest.raises(ValueError, match="capacity 1000000000"):
        geometry_for(10**9, 8)
    with pytest.raises(ValueError, match="17 bytes together"):
        build(bytes(17), 8)

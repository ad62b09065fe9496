"""Store keys, as real Squids wrote them to their store logs and into their digests."""

from __future__ import annotations

import importlib.util
import sys
from hashlib import md5

import pytest

from digest.key import GET, HEAD, KEY_BYTES, store_key, store_keys


@pytest.mark.parametrize(
    ("url", "key"),
    [  # from the store log of a Squid 5.7
        (b"http://127.0.0.10:8000/sl2/0", "8B3E7AB53F7942EFC7AD995DC9000AD8"),
        (b"http://127.0.0.10:8000/sl2/1", "AAE55B0C398BFC487D96A54FB5B6CA17"),
        (b"http://127.0.0.10:8000/sl2/2", "6332040A54EF597EFB0B724C6B7BF3F5"),
    ],
)
def test_keys_are_those_of_a_real_store_log(url: bytes, key: str):
    assert store_key(url).hex().upper() == key


def test_a_key_is_the_md5_of_the_number_of_the_method_and_the_url():
    assert store_key(b"http://a/", GET) == md5(b"\x01http://a/").digest()
    assert store_key(b"http://a/", HEAD) == md5(b"\x04http://a/").digest()
    assert len(store_key(b"")) == KEY_BYTES


def test_the_url_is_taken_byte_for_byte():
    assert len({store_key(url) for url in (b"http://a/", b"http://a:80/", b"HTTP://a/", b"http://a/\xff")}) == 4


def test_a_python_without_md5_of_its_own_gives_the_same_keys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "_md5", None)
    spec = importlib.util.find_spec("digest.key")
    assert spec is not None
    assert spec.loader is not None
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    assert other.md5.func is md5
    assert other.store_key(b"http://a/") == store_key(b"http://a/")


def test_keys_of_many_are_those_of_each():
    urls = [b"", b"http://a/", b"http://b/"]
    for method in (GET, HEAD):
        assert store_keys(urls, method) == [store_key(url, method) for url in urls]

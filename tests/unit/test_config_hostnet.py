from __future__ import annotations

import pytest

from cachelb.config import Config, parse
from cachelb.config_hostnet import VirtualAddress
from cachelb.config_text import as_toml, warnings
from cachelb.errors import ConfigError

NODE = '[[node]]\nname = "a"\nhost = "10.0.0.11"\n'


def config_of(text: str) -> Config:
    return parse(text + NODE, "test")


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as info:
        config_of(text)
    return str(info.value)


def test_nothing_is_set_on_the_host_by_default():
    config = config_of("")
    assert config.hostnet.addresses == ()
    assert config.intercept.listen == ()
    assert config.intercept.clients is None


def test_an_address_without_a_prefix_is_one_host_and_text_comes_back_as_it_was():
    config = config_of('[hostnet]\naddresses = ["10.0.0.100 dev eth0", "2001:db8::5/64 dev br0.7"]\nmark = 0x100\n')
    assert config.hostnet.addresses == (VirtualAddress("10.0.0.100", 32, "eth0"), VirtualAddress("2001:db8::5", 64, "br0.7"))
    assert parse(as_toml(config), "again") == config
    assert Config.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[hostnet]\naddresses = "10.0.0.100"\n', 'does not say an address and its interface (write "10.0.0.100 dev eth0")'),
        ('[hostnet]\naddresses = "eth0"\n', 'write it like "10.0.0.100 dev eth0"'),
        ('[hostnet]\naddresses = "10.0.0.300 dev eth0"\n', '"10.0.0.300" is not an IP address'),
        ('[hostnet]\naddresses = "127.0.0.2 dev lo"\n', "127.0.0.2 cannot be a virtual address"),
        ('[hostnet]\naddresses = "fe80::1 dev eth0"\n', "fe80::1 cannot be a virtual address"),
        ('[hostnet]\naddresses = "10.0.0.1 dev eth/0"\n', '"eth/0" is not the name of a network interface'),
        ("[hostnet]\npriority = 32766\n", "it must be at most 32765"),
        ("[hostnet]\nmark = 0\n", "it must be at least 1"),
        ('[intercept]\nlisten = ["127.0.0.1:3129", "127.0.0.2:3130"]\n', "is a second place beside 127.0.0.1:3129"),
        ('[intercept]\nlisten = "127.0.0.1:3128"\n', "overlaps with listen.http"),
        ("[intercept]\nports = []\n", "intercept.ports"),
        ('[intercept]\ninterfaces = ["a b"]\n', '"a b" is not the name of a network interface'),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(text: str, words: str):
    assert words in refused(text)


def test_directors_that_may_not_ask_each_other_are_worth_a_warning():
    config = config_of('[peers]\ndirectors = ["http://10.0.0.2:3180"]\n')
    assert config.peers.directors == ("http://10.0.0.2:3180",)
    assert any("no [admin] token_file" in text for text in warnings(config))
    assert not any("peers" in text for text in warnings(config_of("")))


@pytest.mark.parametrize("url", ["10.0.0.2:3180", "http://10.0.0.2", "ftp://a.test:1", "http://a b:3180", "http://a.test:0"])
def test_a_director_is_asked_at_a_url(url: str):
    assert "is not the URL of a director's admin listener" in refused(f'[peers]\ndirectors = ["{url}"]\n')

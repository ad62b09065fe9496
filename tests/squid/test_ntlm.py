"""A real NTLM exchange: curl, the director, three real Squids, and a server that checks one connection."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from fakes import FakeSquid
from ntlm import PASSWORD, USER, NtlmServer

from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm, wait_until

ANSWERS = 6


@pytest.fixture
def server() -> Iterator[NtlmServer]:
    origin = FakeSquid("127.0.0.1")
    yield NtlmServer(origin).start()
    origin.stop()


@pytest.mark.parametrize("mode", ["direct", "nodes", "off"])
def test_curl_authenticates_itself(
    squid_farm: SquidFarm, start_director: Callable[..., Director], server: NtlmServer, unique: str, mode: str
):
    try:
        features = subprocess.run(["curl", "--version"], capture_output=True, text=True, timeout=10).stdout
    except FileNotFoundError:
        pytest.skip("curl is not installed")
    if "NTLM" not in features:
        pytest.skip("this curl cannot speak NTLM")
    director = start_director(squid_farm)
    text = director.config_path.read_text("utf-8")
    director.write_config(text.replace("[bypass]\n", f'[bypass]\nmode = "{mode}"\n'))
    director.reload()
    assert wait_until(lambda: director.status()["workers"][0]["epoch"] == director.status()["epoch"] > 1, 30.0)
    urls = [f"http://{server.server.address}/{unique}-{n}" for n in range(ANSWERS)]
    proxy = "http://{}:{}".format(*director.http)
    command = ["curl", "-sS", "-m", "20", "-x", proxy, "--ntlm", "-u", f"{USER}:{PASSWORD}", *urls]
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [client.communicate(timeout=30)[0] for client in clients]
    assert [text.count(f"hello {USER} on") for text in said] == [ANSWERS] * 3
    assert server.broken == 0

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from cachelb.config_values import Address
from cachelb.demo.squid import free_port
from cachelb.listen import CannotListenError, host_names, open_listeners, open_unix


def test_workers_share_an_address():
    listeners = open_listeners(Address("127.0.0.1", free_port("127.0.0.1")), 3)
    try:
        assert len({sock.getsockname() for sock in listeners}) == 1
        assert len(listeners) == 3
        with socket.create_connection(listeners[0].getsockname()):
            pass
    finally:
        for sock in listeners:
            sock.close()


def test_a_socket_that_was_left_is_replaced_and_one_in_use_or_another_file_is_not(tmp_path: Path):
    path = str(tmp_path / "s")
    with open_unix(path, 0o600):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(CannotListenError, match="another program listens"):
            open_unix(path, 0o600)
    open_unix(path, 0o600).close()
    os.unlink(path)
    Path(path).write_text("mine")
    with pytest.raises(CannotListenError, match="no socket"):
        open_unix(path, 0o600)
    assert Path(path).read_text() == "mine"
    with pytest.raises(CannotListenError, match="cannot listen on"):
        open_unix(str(tmp_path / "nowhere" / "s"), 0o600)
    with pytest.raises(CannotListenError, match="path too long"):
        open_unix(str(tmp_path / ("s" * 108)), 0o600)


def test_a_socket_file_that_goes_meanwhile_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever left it may be ending just now."""
    path = str(tmp_path / "s")
    open_unix(path, 0o600).close()
    unlink = os.unlink

    def twice(path: str) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr("cachelb.listen.os.unlink", twice)
    with open_unix(path, 0o600), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_port_in_use_is_said_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListenError, match=f"127.0.0.1 port {port}: another program uses it"):
            open_listeners(Address("127.0.0.1", port), 1)


def test_a_port_that_another_director_shares_is_in_use_too():
    address = Address("127.0.0.1", free_port("127.0.0.1"))
    first = open_listeners(address, 2)
    try:
        with pytest.raises(CannotListenError, match="another program uses it"):
            open_listeners(address, 2)
    finally:
        for sock in first:
            sock.close()


def test_an_address_of_another_host_is_said_in_a_sentence():
    with pytest.raises(CannotListenError, match="this host does not have that address"):
        open_listeners(Address("192.0.2.1", 3128), 1)


def test_a_failure_leaves_no_socket_behind():
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(CannotListenError):
        open_listeners(Address("192.0.2.1", 3128), 3)
    assert set(os.listdir("/proc/self/fd")) <= before | {max(before)}


def test_ipv6_does_not_take_the_ipv4_port():
    try:
        listeners = open_listeners(Address("::1", free_port("127.0.0.1")), 1)
    except CannotListenError:
        pytest.skip("no IPv6 here")
    with listeners[0]:
        port = listeners[0].getsockname()[1]
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_sockets_do_not_leak_into_programs_that_are_started():
    listeners = open_listeners(Address("127.0.0.1", free_port("127.0.0.1")), 1)
    with listeners[0]:
        assert not listeners[0].get_inheritable()


@pytest.mark.parametrize(
    ("name", "hosts", "resolv", "names"),
    [
        ("Cache1", "", "", {"cache1"}),
        ("cache1", "127.0.1.1 cache1.a.test cache1 # us\n::1 localhost\n", "", {"cache1", "cache1.a.test"}),
        ("cache1", "#127.0.1.1 cache1.a.test cache1\n", "", {"cache1"}),
        ("cache1", "10.0.0.1 cache10.a.test\n", "", {"cache1"}),
        ("cache1", "", "nameserver 127.0.0.53\nsearch a.test. b.test\n", {"cache1", "cache1.a.test", "cache1.b.test"}),
        ("cache1.c.test.", "", "domain a.test\n", {"cache1.c.test"}),
    ],
)
def test_a_host_is_called_what_its_files_say(tmp_path, name, hosts, resolv, names):
    (tmp_path / "hosts").write_text(hosts)
    (tmp_path / "resolv.conf").write_text(resolv)
    assert host_names(name, tmp_path / "hosts", tmp_path / "resolv.conf") == names


def test_without_files_a_host_has_its_name(tmp_path):
    assert host_names(hosts_path=tmp_path / "x", resolv_path=tmp_path / "y") == {socket.gethostname().lower()}

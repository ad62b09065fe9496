from __future__ import annotations

import os
import socket

import pytest

from cachelb.config_values import Address
from cachelb.listen import CannotListenError, open_listeners


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def test_workers_share_an_address():
    listeners = open_listeners(Address("127.0.0.1", free_port()), 3)
    try:
        assert len({sock.getsockname() for sock in listeners}) == 1
        assert len(listeners) == 3
        with socket.create_connection(listeners[0].getsockname()):
            pass
    finally:
        for sock in listeners:
            sock.close()


def test_a_port_in_use_is_said_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListenError, match=f"127.0.0.1 port {port}: another program uses it"):
            open_listeners(Address("127.0.0.1", port), 1)


def test_a_port_that_another_director_shares_is_in_use_too():
    address = Address("127.0.0.1", free_port())
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
        listeners = open_listeners(Address("::1", free_port()), 1)
    except CannotListenError:
        pytest.skip("no IPv6 here")
    with listeners[0]:
        port = listeners[0].getsockname()[1]
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_sockets_do_not_leak_into_programs_that_are_started():
    listeners = open_listeners(Address("127.0.0.1", free_port()), 1)
    with listeners[0]:
        assert not listeners[0].get_inheritable()

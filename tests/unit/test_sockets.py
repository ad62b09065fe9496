"""A director's sockets, bound or taken over."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cachelb.config import Address, Config
from cachelb.demo.squid import free_port
from cachelb.listen import CannotListenError
from cachelb.sockets import Sockets
from icp.service import bind


class Places:
    """A configuration that listens everywhere, on free ports."""

    def __init__(self) -> None:
        self.http, self.admin = (Address("127.0.0.1", free_port("127.0.0.1")) for _ in range(2))
        self.icp, self.own = (Address("127.0.0.1", free_port("127.0.0.1", socket.SOCK_DGRAM)) for _ in range(2))

    @property
    def config(self) -> Config:
        listen = {"http": str(self.http), "admin": str(self.admin), "icp": str(self.icp)}
        node = {"name": "a", "host": "127.0.0.1", "store_log": str(self.own)}
        return Config.model_validate_json(json.dumps({"listen": listen, "node": [node]}))


@pytest.fixture
def places() -> Places:
    return Places()


@pytest.fixture
def keep() -> Iterator[ExitStack]:
    """Closes what it is given."""
    with ExitStack() as stack:
        yield stack


def everyone(spread: list[list[socket.socket]]) -> list[set[int]]:
    """For each worker the sockets themselves, told apart by their number in the kernel."""
    return [{os.fstat(sock.fileno()).st_ino for sock in own} for own in spread]


def test_each_worker_gets_a_socket_of_its_own_on_each_address(places: Places, keep: ExitStack):
    subject = Sockets(bind)
    subject.bind(places.config, 3)
    spread = subject.workers([places.http], 3)
    for own in spread:
        (sock,) = own
        keep.enter_context(sock)
        assert sock.getsockname() == places.http
    assert len(set.union(*everyone(spread))) == 3
    keep.enter_context(subject.admin(places.admin))
    keep.enter_context(subject.udp(*places.icp))
    keep.enter_context(subject.udp(*places.own))
    subject.close()


def taken_over(places: Places, workers: int, keep: ExitStack) -> list[socket.socket]:
    first = Sockets(bind)
    first.bind(places.config, workers)
    spread = first.workers([places.http], workers)
    all_ = [sock for own in spread for sock in own]
    all_ += [first.admin(places.admin), first.udp(*places.icp), first.udp(*places.own)]
    for sock in all_:
        keep.enter_context(sock)
    return [sock.dup() for sock in all_]


def test_what_is_taken_over_is_used_again(places: Places, keep: ExitStack):
    inherited = taken_over(places, 2, keep)
    numbers = {os.fstat(sock.fileno()).st_ino for sock in inherited}
    subject = Sockets(bind, inherited)
    subject.bind(places.config, 2)
    spread = subject.workers([places.http], 2)
    found = [sock for own in spread for sock in own]
    found += [subject.admin(places.admin), subject.udp(*places.icp), subject.udp(*places.own)]
    assert {os.fstat(sock.fileno()).st_ino for sock in found} == numbers
    assert len(found) == 5
    for sock in found:
        sock.close()
    subject.close()


@pytest.mark.parametrize(("before", "after"), [(1, 3), (4, 3), (4, 1), (2, 2)])
def test_no_socket_is_nobodys_whatever_the_number_of_workers(before: int, after: int, places: Places, keep: ExitStack):
    inherited = taken_over(places, before, keep)
    subject = Sockets(bind, inherited)
    subject.bind(places.config, after)
    spread = subject.workers([places.http], after)
    for own in spread:
        for sock in own:
            keep.enter_context(sock)
    numbers = everyone(spread)
    listening = {os.fstat(sock.fileno()).st_ino for sock in inherited if sock.getsockname() == places.http}
    assert listening <= set.union(*numbers)
    assert all(numbers)
    assert len(set.union(*numbers)) == max(before, after)
    subject.close()


def test_workers_share_where_no_more_sockets_are_to_be_had(places: Places, keep: ExitStack, monkeypatch: pytest.MonkeyPatch):
    """As of an address that only root could bind."""
    inherited = taken_over(places, 2, keep)

    def refuse(address: Address, count: int, *, transparent: bool) -> list[socket.socket]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cachelb.sockets.open_shared", refuse)
    subject = Sockets(bind, inherited)
    subject.bind(places.config, 3)
    spread = subject.workers([places.http], 3)
    for own in spread:
        keep.enter_context(own[0])
    numbers = everyone(spread)
    assert numbers[2] == numbers[0] != numbers[1]
    subject.close()


def test_what_nobody_takes_is_closed(places: Places, keep: ExitStack):
    inherited = taken_over(places, 1, keep)
    subject = Sockets(bind, inherited)
    subject.close()
    assert [sock.fileno() for sock in inherited] == [-1] * len(inherited)


def test_if_one_is_not_to_be_had_none_is_held(places: Places):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(places.icp)
        subject = Sockets(bind)
        with pytest.raises(CannotListenError, match=f"port {places.icp.port}: another program uses it"):
            subject.bind(places.config, 2)
    for place in (places.http, places.admin):
        socket.create_server(place).close()


def test_a_nodes_own_place_stops_nobody(places: Places, keep: ExitStack):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(places.own)
        subject = Sockets(bind)
        subject.bind(places.config, 1)
        with pytest.raises(OSError, match="in use"):
            subject.udp(*places.own)
        subject.close()


# -- the Unix socket


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def unix_taken_over(path: Path, keep: ExitStack) -> socket.socket:
    first = Sockets(bind)
    first.bind_unix(str(path), 0o600)
    own = first.unix(str(path), 0o600)
    assert own is not None
    keep.enter_context(own)
    assert first.unix(str(path), 0o600) is None
    return own.dup()


def test_a_unix_socket_that_is_taken_over_is_used_again(tmp_path: Path, keep: ExitStack):
    path, link = tmp_path / "s", tmp_path / "link"
    inherited = keep.enter_context(unix_taken_over(path, keep))
    link.symlink_to(tmp_path)
    subject = Sockets(bind, [inherited])
    subject.bind_unix(str(link / "s"), 0o660)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # until the new one is the director
    assert subject.unix(str(link / "s"), 0o660) is inherited
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert listens(path)


@pytest.mark.parametrize("wanted", ["other", ""])
def test_a_unix_socket_that_is_not_wanted_any_more_goes(wanted: str, tmp_path: Path, keep: ExitStack):
    path, other = tmp_path / "s", str(tmp_path / wanted) if wanted else ""
    inherited = unix_taken_over(path, keep)
    subject = Sockets(bind, [inherited])
    if other:
        subject.bind_unix(other, 0o600)
    assert listens(path)  # until the new one is the director
    own = subject.unix(other, 0o600)
    assert not path.exists()
    assert inherited.fileno() == -1
    assert (own is not None) == bool(other)
    if own is not None:
        keep.enter_context(own)
        assert listens(Path(other))


def test_a_unix_socket_whose_file_has_gone_is_made_anew(tmp_path: Path, keep: ExitStack):
    path = tmp_path / "s"
    inherited = unix_taken_over(path, keep)
    path.unlink()
    subject = Sockets(bind, [inherited])
    subject.bind_unix(str(path), 0o600)
    own = subject.unix(str(path), 0o600)
    assert own is not None
    keep.enter_context(own)
    assert inherited.fileno() == -1
    assert listens(path)


def test_who_only_closes_removes_no_unix_socket(tmp_path: Path, keep: ExitStack):
    """A new director that fails leaves the old one its own."""
    inherited = unix_taken_over(tmp_path / "s", keep)
    subject = Sockets(bind, [inherited])
    subject.close()
    assert inherited.fileno() == -1
    assert listens(tmp_path / "s")


def test_a_unix_socket_that_is_not_to_be_had_is_a_sentence(tmp_path: Path):
    with pytest.raises(CannotListenError, match=r"cannot listen on .*/nowhere/s: No such file or directory"):
        Sockets(bind).bind_unix(str(tmp_path / "nowhere" / "s"), 0o600)

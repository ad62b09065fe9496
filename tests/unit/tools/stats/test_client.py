"""Asking, and a clear sentence for each way in which that fails."""

import json
import os
import socket

import pytest
from cachelb.tools.stats.client import Admin, Bad, Down, Refused, read_token
from fakes_stats import FakeAdmin, status, well


def test_the_answer_comes_with_the_token_and_the_query_sent():
    with FakeAdmin(well()) as fake:
        admin = Admin(f"http://{fake.where}", "secret")
        assert admin.get("/status")["version"] == status()["version"]
        admin.get("/hot", limit=3)
    assert [ask[1:3] for ask in fake.asked] == [
        ("/api/v1/status", "Bearer secret"),
        ("/api/v1/hot?limit=3", "Bearer secret"),
    ]


def test_a_node_is_steered_by_its_name_whatever_that_is():
    with FakeAdmin({"/nodes/a%2Fb": {"name": "a/b"}}) as fake:
        assert Admin(fake.where).set_state("a/b", "drain") == {"name": "a/b"}
    assert (fake.asked[0][0], json.loads(fake.asked[0][3])) == ("PUT", {"state": "drain"})


def test_a_refusal_is_the_directors_own_sentence():
    with FakeAdmin({"/status": 401}) as fake, pytest.raises(Refused, match="a sentence of the director's") as caught:
        Admin(fake.where).get("/status")
    assert caught.value.status == 401


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff\xfe"])
def test_what_is_no_admin_api_is_called_so(body: bytes):
    with FakeAdmin({"/status": body}) as fake, pytest.raises(Down, match="not as cachelb's admin API"):
        Admin(fake.where).get("/status")


def test_nobody_listening_is_a_director_that_is_down():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        where = f"127.0.0.1:{sock.getsockname()[1]}"
    with pytest.raises(Down, match=f"nothing listens at {where}: the director is down"):
        Admin(where).get("/status")


def test_a_director_that_hangs_is_told_from_one_that_is_down():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        admin = Admin(f"127.0.0.1:{sock.getsockname()[1]}", timeout_s=0.1)
        with pytest.raises(Down, match=r"accepts connections, but has not answered for 0\.1 s"):
            admin.get("/status")


def test_a_socket_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Down, match=r"admin.sock is not there"):
        Admin(str(tmp_path / "admin.sock")).get("/status")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "old.sock"))
    with pytest.raises(Down, match=r"nothing listens at .*old.sock"):
        Admin(f"unix:{tmp_path}/old.sock").get("/status")


@pytest.mark.parametrize(
    "where", ["", "http://", "a b:1", "127.0.0.1:http", "http://u@h", "http://h:1/path", "/" + "x" * 120, "host:"]
)
def test_an_address_that_is_none_is_refused(where: str):
    with pytest.raises(Bad, match="--admin"):
        Admin(where)


def test_a_port_alone_and_https_are_refused_with_what_to_write_instead():
    with pytest.raises(Bad, match=r"a port without a host; 127\.0\.0\.1:3180"):
        Admin("3180")
    with pytest.raises(Bad, match="not https"):
        Admin("https://host:3180/")


@pytest.mark.parametrize(
    ("where", "shown"),
    [("[::1]:99", "[::1]:99"), ("host", "host:3180"), ("http://host:1/", "host:1"), ("unix:/run/a", "/run/a")],
)
def test_addresses(where: str, shown: str):
    assert Admin(where).where == shown


def test_a_token_is_read_and_a_bad_file_is_named(tmp_path):
    path = tmp_path / "token"
    path.write_text("a-token\n")
    path.chmod(0o600)
    assert read_token(str(path)) == "a-token"
    path.chmod(0o604)
    with pytest.raises(Bad, match="open to others"):
        read_token(str(path))
    path.chmod(0o600)
    for content in (b"", b"two words", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(Bad, match="token"):
            read_token(str(path))
    os.remove(path)
    with pytest.raises(Bad, match="No such file"):
        read_token(str(path))

"""The admin listener over HTTP: where it listens, who may do what, how errors look."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest
from fakes_admin import Asker, free_address, token_file, with_client, with_supervisor

from cachelb.admin import api
from cachelb.admin.api import AdminServer
from cachelb.admin.problems import CONTENT_TYPE
from cachelb.config_values import Address
from cachelb.listen import CannotListenError
from cachelb.supervisor import Supervisor


def is_problem(answer: tuple, status: int, text: str = "") -> bool:
    code, fields, document = answer
    assert (code, fields["Content-Type"].split(";")[0], document["status"]) == (status, CONTENT_TYPE, status)
    assert document["title"]
    assert text in document["detail"]
    return True


def test_who_reads_from_loopback_needs_no_token():
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        status, fields, document = await ask("/api/v1/status")
        assert (status, document["nodes"][0]["name"]) == (200, "a")
        assert fields["Cache-Control"] == "no-store"
        assert fields["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in fields

    with_client(test)


def test_a_change_over_tcp_needs_a_token_and_the_refusal_says_how_to_make_one():
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        answer = await ask("/api/v1/nodes/a", "PUT", {"state": "drain"})
        assert is_problem(answer, 403, "cachelb token")
        assert supervisor.farm.nodes["a"].state == "up"

    with_client(test)


def test_the_token_opens_and_a_wrong_one_does_not(tmp_path: Path):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        answer = await ask("/api/v1/nodes/a", "PUT", {"state": "drain"})
        assert is_problem(answer, 401, "Bearer")
        assert answer[1]["WWW-Authenticate"].startswith("Bearer")
        for wrong in ("Bearer wrong", "Basic abc", "Bearer ", "Bearer a-token-that-nobody-guesse"):
            answer = await ask("/api/v1/nodes/a", "PUT", {"state": "drain"}, fields={"Authorization": wrong})
            assert is_problem(answer, 401)
        assert supervisor.farm.nodes["a"].state == "up"
        status, _, node = await ask.change("/api/v1/nodes/a", json={"state": "drain"})
        assert (status, node["state"]) == (200, "drain")

    with_client(test, admin={"token_file": token_file(tmp_path)})


def test_the_unix_socket_needs_no_token_and_goes_with_the_director(tmp_path: Path):
    path = str(tmp_path / "admin.sock")

    async def test(supervisor: Supervisor, ask: Asker) -> None:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        status, _, node = await ask("/api/v1/nodes/a", "PUT", {"weight": 3})
        assert (status, node["weight"]) == (200, 3)

    with_client(test, unix=path, admin={"socket": path, "socket_mode": "0660"})
    assert not os.path.exists(path)


def test_other_sites_are_kept_out():
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        assert is_problem(await ask("/api/v1/status", fields={"Host": "evil.example"}), 421, "evil.example")
        assert is_problem(await ask("/api/v1/status", fields={"Origin": "http://evil.example"}), 403)
        assert is_problem(await ask("/api/v1/status", fields={"Sec-Fetch-Site": "cross-site"}), 403)
        assert (await ask("/api/v1/status", fields={"Host": "cache.example:3180"}))[0] == 200

    with_client(test, admin={"names": ["cache.example"]})


def test_what_is_not_there_and_what_cannot_be_done_are_problems():
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        for path in ("/api/v1/", "/metrics/x", "/page/..%2fapi.py", "/page/nothing.js", "/page/.hidden"):
            assert is_problem(await ask(path), 404)
        answer = await ask("/metrics", "POST", {}, fields={"Authorization": "Bearer x"})
        assert answer[0] == 401
        assert (await ask("/metrics", "HEAD"))[0] == 200

    with_client(test)


def test_a_method_that_is_not_for_a_resource_is_said_with_those_that_are(tmp_path: Path):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        answer = await ask.change("/api/v1/status", "DELETE")
        assert is_problem(answer, 405)
        assert "GET" in answer[1]["Allow"]

    with_client(test, admin={"token_file": token_file(tmp_path)})


def test_an_error_of_ours_is_a_problem_and_is_logged(monkeypatch: pytest.MonkeyPatch, caplog):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        monkeypatch.setattr(supervisor.farm, "views", lambda health: 1 / 0)
        assert is_problem(await ask("/api/v1/status"), 500)
        assert "ZeroDivisionError" in caplog.text

    with_client(test)


def test_the_page_may_load_nothing_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "index.html").write_text("<p>here")
    monkeypatch.setattr("cachelb.admin.api.PAGE", tmp_path)

    async def test(supervisor: Supervisor, ask: Asker) -> None:
        status, fields, data = await ask("/")
        assert (status, data) == (200, b"<p>here")
        assert "default-src 'none'" in fields["Content-Security-Policy"]
        assert "unsafe" not in fields["Content-Security-Policy"]

    with_client(test)


def test_a_token_that_is_written_anew_is_read_at_the_next_reload(tmp_path: Path):
    config = tmp_path / "cachelb.toml"
    token = token_file(tmp_path)
    config.write_text(f'[admin]\ntoken_file = "{token}"\n[[node]]\nname = "a"\nhost = "192.0.2.1"\n')

    async def test(supervisor: Supervisor, ask: Asker) -> None:
        Path(token).write_text("another-token-altogether")  # noqa: ASYNC240
        assert (await ask.change("/api/v1/reload", "POST"))[0] == 200
        assert (await ask.change("/api/v1/reload", "POST"))[0] == 401

    with_client(test, str(config), admin={"token_file": token})


def test_an_address_that_is_not_to_be_had_is_a_sentence():
    async def test(supervisor: Supervisor) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            admin = AdminServer(supervisor)
            good = free_address()
            with pytest.raises(CannotListenError) as caught:
                await admin.start([good, Address("127.0.0.1", port)])
            assert caught.value.strerror.startswith(f"cannot listen on 127.0.0.1 port {port}: another program uses it")
            await admin.stop()
        with socket.create_server((good.host, good.port)):  # the first one has been let go
            pass

    with_supervisor(test)


def test_who_connects_and_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "IDLE_S", 0.1)

    async def test(supervisor: Supervisor) -> None:
        admin = AdminServer(supervisor)
        address = free_address()
        await admin.start([address])
        reader, writer = await asyncio.open_connection(address.host, address.port)
        assert await asyncio.wait_for(reader.read(), 10.0) == b""
        writer.close()
        await admin.stop()

    with_supervisor(test)

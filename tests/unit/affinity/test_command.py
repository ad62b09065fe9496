"""``cachelb affinity`` where no director answers; with one: test_keeper.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cachelb import cli
from cachelb.affinity.command import _admin, _counts, _table
from cachelb.config import Config, parse

NODE = '[[node]]\nname = "a"\nhost = "10.0.0.1"\n'


def complaint(path: Path, capsys: pytest.CaptureFixture[str], *words: str, text: str) -> str:
    path.write_text(text + NODE)
    assert cli.main(["affinity", *words, "-c", str(path)]) == 1
    return capsys.readouterr().err


def test_a_director_that_is_not_there_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    path = tmp_path / "cachelb.toml"
    said = complaint(path, capsys, "count", text=f'[listen]\nadmin = "127.0.0.1:{port}"\n')
    assert f"nothing listens at 127.0.0.1:{port}" in said
    said = complaint(path, capsys, "list", text=f'[admin]\nsocket = "{tmp_path}/none"\n')
    assert f"{tmp_path}/none is not there" in said
    said = complaint(path, capsys, "list", text="[listen]\nadmin = []\n")
    assert "it has neither [admin] socket nor [listen] admin" in said


def test_a_flush_of_nothing_and_a_bad_token_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "cachelb.toml"
    assert "flush what?" in complaint(path, capsys, "flush", text="")
    said = complaint(path, capsys, "flush", "--client", "10.0.0.1", text=f'[admin]\ntoken_file = "{tmp_path}/none"\n')
    assert "No such file" in said


@pytest.mark.parametrize("words", [["list", "--limit", "0"], ["list", "--limit", "x"], ["drop"], []])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["affinity", *words, "-c", "x"])
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("listen", "where"), [("0.0.0.0:3180", "127.0.0.1:3180"), ("[::]:3180", "[::1]:3180"), ("10.0.0.5:99", "10.0.0.5:99")]
)
def test_the_director_is_asked_where_it_listens(listen: str, where: str):
    config: Config = parse(f'[listen]\nadmin = "{listen}"\n{NODE}', "test")
    assert _admin(config, with_token=False).where == where


def test_tables_are_for_people():
    client = {"group": "shop", "client": "10.0.0.0/24", "node": "a", "home": "", "idle_s": 5.4, "expires_in_s": 294.6}
    found = {"clients": [client], "next": "0-1-2", "templates": 9, "limit": 10, "groups": []}
    assert _table(found).splitlines() == [
        "group  client       node  returns to  idle  expires in",
        "shop   10.0.0.0/24  a     -           5 s   295 s",
        "... there are more: --limit (there are 9 in all)",
    ]
    found["groups"] = [{"name": "shop", "nodes": {"a": 5, "b": 4}}, {"name": "mail", "nodes": {"a": 1}}]
    assert _counts(found, "shop", "b").splitlines() == ["group  node  templates", "shop   b     4", "9 of at most 10"]

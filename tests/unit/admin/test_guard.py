"""Who may ask the admin API for what."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachelb.admin.guard import Asked, is_loopback, judge, read_token

TOKEN = "0123456789abcdef"


def asked(
    peer: str = "127.0.0.1", host: str = "127.0.0.1:3180", changes: bool = False, page: bool = False, **more: str
) -> Asked:
    return Asked(peer, host, more.get("origin", ""), more.get("authorization", ""), more.get("fetch_site", ""), changes, page)


def status(request: Asked, token: str = TOKEN, names: tuple[str, ...] = ()) -> int:
    refusal = judge(request, token, names)
    return refusal.status if refusal else 200


RIGHT = f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asked(), 200),
        (asked("::1", "[::1]:3180"), 200),
        (asked("::ffff:127.0.0.1"), 200),
        (asked(changes=True), 401),
        (asked(changes=True, authorization=RIGHT), 200),
        (asked(changes=True, authorization=f"bearer  {TOKEN}"), 200),
        (asked(changes=True, authorization=f"Basic {TOKEN}"), 401),
        (asked(authorization="Bearer wrong"), 401),  # it would be odd if it worked for reading
        (asked("10.0.0.1", "director:3180"), 401),
        (asked("10.0.0.1", "director:3180", authorization=RIGHT), 200),
        (asked("unknown"), 401),
        (asked("", "anything", changes=True), 200),
        (asked("", "anything", origin="http://evil"), 200),  # no browser gets there
        (asked(host="localhost:3180"), 200),
        (asked(host="LOCALHOST"), 200),
        (asked(host="evil.example:3180"), 421),
        (asked(host="127.0.0.1.evil.example"), 421),
        (asked(host=""), 421),
        (asked(host="evil.example", changes=True, authorization=RIGHT), 421),
        (asked(origin="http://127.0.0.1:3180"), 200),
        (asked(origin="http://127.0.0.1:80"), 403),
        (asked(origin="null"), 403),
        (asked(origin="http://evil", changes=True, authorization=RIGHT), 403),
        (asked(fetch_site="same-origin"), 200),
        (asked(fetch_site="none"), 200),
        (asked(fetch_site="cross-site"), 403),
        (asked(fetch_site="same-site"), 403),
        (asked("10.0.0.1", "director:3180", page=True), 200),  # it is what asks for the token
        (asked(fetch_site="cross-site", page=True), 200),  # a link to it
        (asked(host="evil.example", page=True), 421),
        (asked("10.0.0.1", "director:3180", page=True, changes=True), 401),
    ],
)
def test_each_is_judged_by_where_it_comes_from_and_what_it_wants(request_: Asked, expected: int):
    assert status(request_) == expected


def test_names_of_ours_are_those_that_are_configured():
    assert status(asked(host="cache.example"), names=("cache.example",)) == 200


def test_without_a_token_nothing_is_right_and_it_is_said_how_to_make_one():
    assert status(asked(changes=True), token="") == 403
    assert status(asked(changes=True, authorization="Bearer "), token="") == 401
    refusal = judge(asked("10.0.0.1", changes=False), "", ())
    assert refusal is not None
    assert refusal.status == 403
    assert "cachelb token" in refusal.detail


def test_loopback_is_this_machine_only():
    assert [is_loopback(peer) for peer in ("127.9.9.9", "::1", "10.0.0.1", "fe80::1%eth0", "", "x")] == [
        *(True, True), *(False,) * 4,
    ]  # fmt: skip


def written(directory: Path, text: str, mode: int = 0o600) -> str:
    path = directory / "token"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_token_is_read_from_a_file_that_others_cannot_open(tmp_path: Path, mode: int):
    assert read_token(written(tmp_path, TOKEN + "\n", mode)) == (TOKEN, "")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o666])
def test_a_file_that_is_open_to_others_is_not_used(tmp_path: Path, mode: int):
    token, problem = read_token(written(tmp_path, TOKEN, mode))
    assert (token, "chmod 600" in problem) == ("", True)


@pytest.mark.parametrize("text", ["", "short", "two words that are long", "\x00" * 40, "ä" * 20])
def test_what_is_no_token_is_not_used(tmp_path: Path, text: str):
    token, problem = read_token(written(tmp_path, text))
    assert token == ""
    assert "no token" in problem


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path):
    assert "No such file" in read_token(str(tmp_path / "nothing"))[1]
    assert read_token(str(tmp_path))[1]
    assert read_token("") == ("", "")

"""The secret of cookies: shared by a file, or made and kept, or made for now."""

from __future__ import annotations

import json

import pytest

from cachelb import cookiekey
from cachelb.config import Config
from cachelb.cookiekey import FILE_NAME, CookieKey, kept_secret, read_secret, trouble

SECRET = "s" * 32


@pytest.fixture(autouse=True)
def _no_state_directory(monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def config(path="", state="", cookies=1):
    cookie = [{"name": "a"}] * cookies
    settings = {"cookie": cookie, "service": {"cookie_secret_file": path}, "index": {"state": state}}
    return Config.model_validate_json(json.dumps(settings))


def written(tmp_path, text=SECRET, mode=0o600):
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_without_cookies_there_is_none(tmp_path):
    key = CookieKey()
    key.configure(config(state=str(tmp_path), cookies=0))
    assert key.secret == ""
    assert list(tmp_path.iterdir()) == []


def test_from_a_file(tmp_path):
    key = CookieKey()
    key.configure(config(str(written(tmp_path, f" {SECRET}\n"))))
    assert key.secret == SECRET


@pytest.mark.parametrize(
    ("text", "mode", "says"), [("short", 0o600, "at least 32"), (SECRET, 0o644, "chmod 600"), ("", 0o600, "at least 32")]
)
def test_a_bad_file_is_said_once_and_the_secret_before_stays(tmp_path, caplog, text, mode, says):
    key = CookieKey()
    key.configure(config(str(written(tmp_path))))
    path = written(tmp_path, text, mode)
    for _ in range(2):
        key.configure(config(str(path)))
    assert key.secret == SECRET
    assert [record.getMessage() for record in caplog.records if says in record.getMessage()] == [caplog.records[0].getMessage()]


def test_check_finds_what_is_wrong_with_the_file(tmp_path):
    assert trouble(config()) == ""
    assert trouble(config(str(tmp_path / "none"), cookies=0)) == ""
    assert "No such file" in trouble(config(str(tmp_path / "none")))
    assert trouble(config(str(written(tmp_path)))) == ""
    assert "chmod 600" in trouble(config(str(written(tmp_path, mode=0o644))))


def test_a_file_that_this_user_may_not_read_is_not_called_bad(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cookiekey, "read_secret", denied)
    assert "so it was not checked" in trouble(config(str(tmp_path / "any")))


def test_without_a_usable_file_one_is_made_for_now(tmp_path, caplog):
    key = CookieKey()
    key.configure(config(str(tmp_path / "nothing")))
    assert len(key.secret) == 64
    assert "No such file" in caplog.text


def test_kept_in_the_state_directory(tmp_path):
    first, second = CookieKey(), CookieKey()
    first.configure(config(state=str(tmp_path)))
    second.configure(config(state=str(tmp_path)))
    assert first.secret == second.secret
    path = tmp_path / FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept_secret(path) == read_secret(path) == first.secret


def test_nowhere_to_keep_it(caplog):
    key = CookieKey()
    key.configure(config())
    made = key.secret
    key.configure(config())
    assert key.secret == made != ""
    assert "until the director ends" in caplog.text

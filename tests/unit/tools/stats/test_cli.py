"""The command: what is printed, and the exit status that monitoring looks at."""

import csv
import io
import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from cachelb.tools.stats import cli
from cachelb.tools.stats.cli import main
from fakes_stats import FakeAdmin, node, status, well

from cachelb import __version__


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("CACHELB_ADMIN", "CACHELB_TOKEN_FILE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def run(capsys, *argv: str, **answers) -> tuple[int, str, str]:
    with FakeAdmin(well(**answers)) as fake:
        code = main(["--admin", fake.where, *argv])
    out, err = capsys.readouterr()
    return code, out, err


SICK = {"/status": status(node("a"), node("b", state="dead"))}


def test_a_farm_that_is_well_is_0_and_one_that_is_not_is_1(capsys):
    code, out, _ = run(capsys)
    assert (code, out.splitlines()[0].startswith("✔ all well")) == (0, True)
    code, out, _ = run(capsys, **SICK)
    assert (code, out.splitlines()[0].startswith("✖ NOT WELL")) == (1, True)


def test_what_is_piped_has_no_escapes_and_80_columns(capsys):
    _, out, _ = run(capsys, **SICK)
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_colours_are_there_where_they_are_wanted_and_not_with_no_color(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;31m" in run(capsys, **SICK)[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in run(capsys, **SICK)[1]


def test_json_and_csv_are_whole(capsys):
    code, out, _ = run(capsys, "--json", **SICK)
    assert (code, json.loads(out)["well"]) == (1, False)
    code, out, _ = run(capsys, "--csv")
    assert (code, len(list(csv.reader(io.StringIO(out))))) == (0, 5)


def test_a_director_that_is_down_is_2_and_one_sentence(capsys):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        where = f"127.0.0.1:{sock.getsockname()[1]}"
    assert main(["--admin", where]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"cachelb-stats: nothing listens at {where}")
    assert main(["--admin", where, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["well"] is None


def test_a_refusal_is_3_and_hints_at_the_token(capsys):
    code, _, err = run(capsys, **{"/status": 401})
    assert code == 3
    assert "a sentence of the director's (--token-file)" in err


@pytest.mark.parametrize(
    "argv", [["--admin", "a b"], ["--token-file", "/nowhere"], ["--watch"], ["--timeout", "0"], ["--hot", "x"], ["--sort", "y"]]
)
def test_wrong_usage_is_3(capsys, argv: list[str]):
    try:
        code = main(argv)
    except SystemExit as end:
        code = end.code
    assert code == 3
    assert "cachelb-stats: " in capsys.readouterr().err


def test_a_director_that_has_just_started_is_looked_at_twice(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "SECOND_LOOK_S", 0.0)
    bare = status(rates={"window_s": 0.0})
    answers = iter([bare, bare | {"now": bare["now"] + 1.0, "farm": bare["farm"] | {"requests": 3042}}])
    code, out, _ = run(capsys, **{"/status": lambda: next(answers)})
    assert code == 0
    assert "42 req/s" in out


def test_it_asks_for_as_many_hot_urls_as_are_wanted(capsys):
    with FakeAdmin(well()) as fake:
        main(["--admin", fake.where, "--hot", "17"])
    assert any("/hot?limit=17&" in ask[1] for ask in fake.asked)


@pytest.mark.parametrize("how", ["", "--csv", "--json"])
def test_a_locale_without_utf_8_gets_ascii_and_all_of_it(how: str):
    with FakeAdmin(well(**{"/status": status(node("кэш-1"), node("b", state="dead"))})) as fake:
        command = [sys.executable, "-m", "cachelb.tools.stats", "--admin", fake.where, *how.split()]
        environment = os.environ | {"PYTHONIOENCODING": "ascii"}
        done = subprocess.run(command, capture_output=True, env=environment, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.isascii()
    assert b"dead" in done.stdout


@pytest.mark.parametrize("how", [(), ("--csv",)])
@pytest.mark.parametrize(("answers", "code"), [({}, 0), (SICK, 1)])
def test_its_status_is_the_farms_when_nobody_reads_the_rest(how: tuple[str, ...], answers: dict[str, Any], code: int):
    """As with ``cachelb-stats | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    with FakeAdmin(well(**answers)) as fake, open(writer, "w") as pipe:
        command = [sys.executable, "-m", "cachelb.tools.stats", "--admin", fake.where, *how]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (code, b"")


def test_the_address_may_stand_by_itself(capsys):
    with FakeAdmin(well()) as fake:
        assert main([f"http://{fake.where}/"]) == 0
        assert fake.where in capsys.readouterr().out


def test_two_addresses_are_a_question_and_an_empty_one_is_none(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--admin", "a:1", "b:2"])
    assert end.value.code == 3
    assert "--admin a:1, or b:2?" in capsys.readouterr().err
    assert main([""]) == 3  # a variable of a shell that is not set


def test_a_director_that_is_down_is_2_when_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cachelb.tools.stats", "--admin", "127.0.0.1:1", "--json"]
    with open(writer, "w") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=30, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"cachelb {__version__}\n"

"""The fuzz targets for a moment each, from a fixed seed, and their runner.

`make fuzz` runs them for a minute each, from another seed every time.
"""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from cachelb import compiled

RUN = Path(__file__).parent / "fuzz" / "run.py"
LEAST_SHARE = 0.1  # of the inputs must be taken, and refused: else what is behind the first check is not reached

INPUTS = 4000
# What each must have found in them, in the words of its `check`.
MUST_FIND = {
    "chunked": ("done", "more"),
    "compiled": ("read alike", "refused alike"),
    "digest": ("taken", "taken and united", "refused version", "refused _ hash functions", "refused a mask of"),
    "digest_head": (
        "taken, fresh",
        "refused not an HTTP answer",
        "refused malformed",
        "refused Content-Length",
        "refused ambiguous",
    ),
    "fields": ("a body", "refused BAD_FRAMING", "refused BAD_REQUEST", "refused EXPECTATION_FAILED", "refused NOT_IMPLEMENTED"),
    "freshness": ("stored", "stored, stale at once", "refused: not stored"),
    "head": ("chunked", "a body", "no body", "more is needed", "refused BAD_VERSION", "refused by its fields BAD_FRAMING"),
    "hello": (
        "a name",
        "no name",
        "more is needed",
        "a session",
        "a ticket",
        "refused a record",
        "refused a field",
        "refused a name",
    ),
    "htcp": (
        *("TST query: 0", "TST query: 1", "CLR query: 0", "CLR query: 2", "TST reply", "CLR reply"),
        *(f"refused {word}" for word in ("short", "length", "version", "opcode", "unsolicited", "section", "trailing", "auth")),
    ),
    "icp": (
        *(f"QUERY: {word}" for word in ("HIT", "MISS", "ERR", "MISS_NOFETCH", "DENIED, silence", "silence")),
        *(
            f"refused {word}"
            for word in ("short", "version", "length", "opcode", "hit_obj", "no_url", "no_nul", "stray_nul", "long_url")
        ),
    ),
    "logline": ("a request", "some of it", "left out", "refused as bad", "refused as nothing"),
    "plan": ("plain", "plain, the usual line", "not plain", "more is needed", "refused"),
    "proxy": (
        *("version 1", "version 2", "the connection's own", "more is needed"),
        *(
            f"refused {word}"
            for word in ("no PROXY header", "version _: not family", "version _: an address", "version _: version and")
        ),
    ),
    "response": ("chunked", "a length", "until it closes", "more is needed"),
    "saved": ("loaded as it was saved", "loaded, some of it", "refused damaged", "refused version", "refused the names"),
    "storelog": (
        "stored",
        "released",
        "ended",
        "renewed",
        "private",
        "method",
        "action",
        "refused bad_key",
        "refused bad_action",
    ),
    "url": ("http", "https", "ftp", "another scheme"),
}


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_runner", RUN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(runner: ModuleType) -> Callable[..., object]:
    """``made(check)``: a target that counts from "0" on and that `check` judges."""

    def target(check: Callable[[bytes], str]) -> object:
        return runner.Target("made", "It holds.", lambda chance: b"%d" % chance.randrange(1000), check)

    return target


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, RUN, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_every_target_is_expected_to_find_something(runner: ModuleType):
    assert set(runner.names()) == set(MUST_FIND)


@pytest.mark.parametrize("name", MUST_FIND)
def test_the_invariant_holds_for_a_moment(name: str):
    if name == "compiled" and compiled.problem(compiled.folder()):
        pytest.skip("nothing is compiled here (make compiled)")
    done = run(name, "--inputs", str(INPUTS), "--seed", "1", "--words")
    assert done.returncode == 0, done.stdout + done.stderr
    line, *words = done.stdout.splitlines()
    share = re.match(rf"{name} +[0-9,]+ inputs +[0-9,]+/s +([0-9]+)% taken, slowest [0-9]+ ms, seed 1: \w", line)
    assert share is not None, line
    assert 100 * LEAST_SHARE <= int(share[1]) <= 100 * (1 - LEAST_SHARE)
    found = [word.split(None, 1)[1] for word in words]
    assert [want for want in MUST_FIND[name] if not any(word.startswith(want) for word in found)] == []


def test_several_run_at_once_and_each_tells_when_it_is_done():
    done = run("url", "fields", "--seconds", "0.2", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == "2 targets, 0.2 s each, 2 at once: about 0 s"
    assert [line[:6] for line in lines] == ["[1/2] ", "[2/2] "]
    assert {line.split()[1] for line in lines} == {"url", "fields"}


def test_another_seed_is_taken_each_time_and_a_given_one_is_kept():
    seeds = [re.search(r"seed ([0-9]+)", run("url", "--seconds", "0.01").stdout)[1] for _ in range(2)]  # type: ignore[index]
    assert seeds[0] != seeds[1]
    assert "seed 77:" in run("url", "--seconds", "0.01", "--seed", "77").stdout


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["url", "icp", "--words"], ["--inputs", "3"], ["--seconds", "0"], ["--jobs", "0"]]
)
def test_wrong_usage_is_2(arguments: list[str]):
    assert run(*arguments).returncode == 2


def no_seven(data: bytes) -> str:
    if b"7" in data:
        raise ValueError(data)
    return "taken"


def test_a_broken_invariant_names_the_seed_and_the_input(runner: ModuleType, made: Callable[..., object]):
    tally = runner.pursue(made(no_seven), 60, 5)
    assert tally.failure is not None
    assert b"7" in tally.failure.data
    again = runner.pursue(made(no_seven), 60, tally.failure.seed)
    assert again.inputs == 0
    assert again.failure.data == tally.failure.data
    assert tally.inputs == tally.failure.seed - 5


def test_an_input_that_breaks_is_shortened(runner: ModuleType, made: Callable[..., object]):
    failure = runner.Failure(1, b"1234567890" * 50, ValueError())
    assert runner.shrink(made(no_seven), failure).data == b"7"


def test_a_failure_is_printed_kept_and_can_be_repeated(
    runner: ModuleType, made: Callable[..., object], capsys: pytest.CaptureFixture[str]
):
    target = made(no_seven)
    assert runner.run_one(target, 5, SimpleNamespace(seconds=60, inputs=1000, words=False)) == 1
    text = capsys.readouterr().out
    assert text.startswith("made: BROKEN: It holds.\nTraceback")
    assert "input, 1 bytes: b'7'" in text
    kept = re.search(r"--input (\S+)", text)
    assert kept is not None
    path = Path(kept[1])
    try:
        assert path.read_bytes() == b"7"
        assert runner.run_input(target, path) == 1
    finally:
        path.unlink()
    assert re.search(r"--seed [0-9]+ ", text)


def test_an_input_that_takes_too_long_is_a_failure(
    runner: ModuleType, made: Callable[..., object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "CPU_LIMIT_S", 0.05)

    def endless(data: bytes) -> str:
        while True:
            pass

    tally = runner.pursue(made(endless), 60, 5)
    assert isinstance(tally.failure.problem, runner.TooSlow)
    assert runner.shrink(made(endless), tally.failure) == tally.failure


def test_a_process_that_dies_is_a_failure(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    dying = tmp_path / "dying.py"
    dying.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(runner, "__file__", str(dying))
    assert runner._run_apart("icp", 1, 9) == (-11, "icp: BROKEN: died of signal 11, seed 9")


def test_what_a_target_makes_of_a_seed_is_always_the_same():
    sys.path.insert(0, str(RUN.parent))
    try:
        module = importlib.import_module("fuzz_icp")
        assert [module.make(random.Random(seed)) for seed in range(50)] == [
            module.make(random.Random(seed)) for seed in range(50)
        ]
    finally:
        sys.path.remove(str(RUN.parent))

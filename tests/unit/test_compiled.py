"""``cachelb.compiled``: compiled modules are used only while they are what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import users_environment

from cachelb import compiled

BUILT = not compiled.problem(compiled.folder())
SHOW = (
    "import cachelb.relay.exchange as e, cachelb.compiled as c;"
    "print(c.in_use, e.__file__.endswith('.py'), c.why_not)"
)


def shown(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SHOW],
        env={**users_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder that says that it was made from the present sources."""
    (tmp_path / compiled.MANIFEST).write_text(json.dumps(compiled.fingerprint()))
    return tmp_path


def test_modules_made_from_these_sources_can_be_used(built: Path):
    assert compiled.problem(built) == ""


def test_every_listed_module_has_a_source():
    assert [module for module in compiled.MODULES if not compiled.source_of(module).is_file()] == []


@pytest.mark.parametrize("what", ["interpreter", "cachelb.relay.exchange", "icp.answer"])
def test_a_changed_source_or_another_python_makes_them_useless(built: Path, what: str):
    (built / compiled.MANIFEST).write_text(json.dumps({**compiled.fingerprint(), what: "0" * 64}))
    assert "have changed" in compiled.problem(built)


def test_a_module_more_or_less_makes_them_useless(built: Path):
    fewer = {name: value for name, value in compiled.fingerprint().items() if name != "cachelb.http.url"}
    (built / compiled.MANIFEST).write_text(json.dumps(fewer))
    assert "have changed" in compiled.problem(built)


@pytest.mark.parametrize("text", ["", "{", "\udcff"])
def test_a_manifest_that_cannot_be_read_is_named(built: Path, text: str):
    (built / compiled.MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert str(built / compiled.MANIFEST) in compiled.problem(built)


def test_nothing_built_says_how_to_build(tmp_path: Path):
    assert "cachelb.tools.compile" in compiled.problem(tmp_path)


def test_the_finder_finds_what_is_compiled_and_nothing_else(built: Path):
    finder = compiled.Finder(built)
    spec = finder.find_spec("cachelb.relay.exchange", None)
    assert spec is not None
    assert spec.origin is not None
    assert spec.origin.startswith(str(built / "cachelb/relay/exchange."))
    assert finder.find_spec("cachelb.relay", None) is None
    assert finder.find_spec("json", None) is None


def test_the_environment_can_ask_for_the_sources():
    done = shown(CACHELB_COMPILED="0")
    assert done.stdout.split(maxsplit=2) == ["False", "True", "CACHELB_COMPILED=0\n"]


@pytest.mark.skipif(not BUILT, reason="nothing is compiled here (make compiled)")
@pytest.mark.parametrize("asked", [{}, {"CACHELB_COMPILED": "1"}])
def test_what_is_built_is_used(asked: dict[str, str]):
    assert shown(**asked).stdout.split() == ["True", "False"]


@pytest.mark.skipif(not BUILT, reason="nothing is compiled here (make compiled)")
def test_what_was_imported_before_cachelb_keeps_the_sources_running_and_works():
    made = "a.Answerer(lambda url: True, lambda source: True)"
    show = f"import icp.answer as a;{SHOW}; print(a.__file__.endswith('.py'), {made}.counts[0])"
    done = subprocess.run(
        [sys.executable, "-c", show],
        env={**users_environment(), compiled.VARIABLE: ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert done == ["False True icp.answer was imported before cachelb", "True 0"]


def test_what_can_be_used_alone_imports_nothing_of_cachelb():
    show = "import sys, icp, digest; print([name for name in sys.modules if name.startswith('cachelb')])"
    assert subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.skipif(BUILT, reason="it is compiled here")
def test_asking_for_what_is_not_built_is_an_error_that_says_how():
    done = shown(CACHELB_COMPILED="1")
    assert done.returncode != 0
    assert "cachelb.tools.compile" in done.stderr

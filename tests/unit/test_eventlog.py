"""Events on stderr: one line each, whatever is in them."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from cachelb import eventlog


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger(eventlog.OWN)
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level, own.level = before
    logging.captureWarnings(False)


def test_a_text_event_is_time_level_area_text() -> None:
    out = io.StringIO()
    eventlog.setup("text", "info", out)
    logging.getLogger("cachelb.health").info("node %s: up -> dead (connect refused)", "cache2")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO health node cache2: up -> dead \(connect refused\)\n",
        out.getvalue(),
    )


def test_a_json_event_has_the_same_in_fields() -> None:
    out = io.StringIO()
    eventlog.setup("json", "info", out)
    logging.getLogger("cachelb.relay").warning("two\nlines \u2028 \x1b")
    record = json.loads(out.getvalue())
    assert (record["level"], record["area"], record["text"]) == ("warning", "relay", "two\nlines \u2028 \x1b")
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().isascii()


def test_the_time_is_that_of_the_event_in_utc() -> None:
    record = logging.LogRecord("cachelb.x", logging.INFO, "", 0, "t", None, None)
    record.created, record.msecs = 1795229565.123, 123.0
    assert eventlog.TextFormatter().format(record).startswith("2026-11-21T02:52:45.123Z ")


@pytest.mark.parametrize("dirt", ["\n", "\r", "\x00", "\x1b[2J", "\x7f", "\x85", "\u2028", "\ud800"])
def test_control_characters_cannot_break_a_line(dirt: str) -> None:
    out = io.StringIO()
    eventlog.setup("text", "info", out)
    logging.getLogger("cachelb").info("a%sb", dirt)
    text = out.getvalue()
    assert text.endswith("b\n")
    assert len(text.splitlines()) == 1
    assert dirt not in text[:-1]
    text.encode()


def test_a_message_is_cut_at_its_limit() -> None:
    out = io.StringIO()
    eventlog.setup("text", "info", out)
    logging.getLogger("cachelb").info("x" * 100_000)
    assert len(out.getvalue()) < eventlog.TEXT_CHARS + 100


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_follows_its_event(form: str) -> None:
    out = io.StringIO()
    eventlog.setup(form, "info", out)  # type: ignore[arg-type]
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("cachelb.worker").exception("went wrong")
    if form == "json":
        assert "ValueError: why" in json.loads(out.getvalue())["traceback"]
    else:
        first, *rest = out.getvalue().splitlines()
        assert first.endswith("ERROR worker went wrong")
        assert rest[-1] == "    ValueError: why"
        assert all(line.startswith("    ") for line in rest)


def test_the_level_rules_ours_and_libraries_are_quiet() -> None:
    out = io.StringIO()
    eventlog.setup("text", "info", out)
    logging.getLogger("cachelb.a").debug("no")
    logging.getLogger("aiohttp.access").info("no")
    logging.getLogger("cachelb.a").info("yes")
    logging.getLogger("asyncio").warning("yes")
    assert [line.split()[-1] for line in out.getvalue().splitlines()] == ["yes", "yes"]


def test_at_error_even_warnings_of_libraries_are_silent() -> None:
    out = io.StringIO()
    eventlog.setup("text", "error", out)
    logging.getLogger("asyncio").warning("no")
    logging.getLogger("cachelb").warning("no")
    assert out.getvalue() == ""


def test_a_second_setup_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    eventlog.setup("text", "info", first)
    eventlog.setup("json", "debug", second)
    logging.getLogger("cachelb").debug("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_a_closed_stderr_does_not_stop_the_caller() -> None:
    out = io.StringIO()
    eventlog.setup("text", "info", out)
    out.close()
    logging.getLogger("cachelb").info("nobody hears")

"""Events for people: Python's logging, set up to write one line per event to stderr.

Text, for a terminal or a journal::

    2026-11-21T02:52:45.123Z WARNING cachelb node cache2 is dead: 2 probes in a row failed, last: connection refused

or JSON lines with the same in ``time``, ``level``, ``area`` and ``text``.  The area is the logger's name without
``cachelb.``.  What peers send can end up in a message, so control characters are escaped: a line stays a line.  A
traceback follows its event, indented, in the text form.

Left out: the access log (``accesslog``, ``logfile``).  Nothing here runs per request.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any, Literal, TextIO

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
TEXT_CHARS = 8192  # of one message; more than that is a peer's doing
OWN = "cachelb"

# C0, DEL, C1, the line and paragraph separators, and lone surrogates, which no encoding takes
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _escaped(text: str) -> str:
    if len(text) > TEXT_CHARS:
        text = text[:TEXT_CHARS] + "..."
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class TextFormatter(logging.Formatter):
    """One line of text, and a traceback if the event has one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return ``TIME LEVEL AREA TEXT``."""
        line = f"{_time_of(record)} {record.levelname} {_area(record)} {_escaped(record.getMessage())}"
        trace = self._trace(record)
        return line + "".join(f"\n    {_escaped(part)}" for part in trace.splitlines()) if trace else line

    def _trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else (record.exc_text or "")


class JsonFormatter(TextFormatter):
    """One JSON object per event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object; ``traceback`` is there only if the event has one."""
        fields: dict[str, Any] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "area": _area(record),
            "text": record.getMessage()[:TEXT_CHARS],
            "pid": record.process,
        }
        if trace := self._trace(record):
            fields["traceback"] = trace
        return json.dumps(fields)


def _time_of(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _area(record: logging.LogRecord) -> str:
    return record.name.removeprefix(OWN + ".")


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to stderr.  If that is gone there is nobody to tell: the event is lost, the director goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        del record


def setup(form: Literal["text", "json"], level: str, stream: TextIO | None = None) -> None:
    """Send events of at least ``level``, one of ``LEVELS``, to stderr (or ``stream``) as ``form`` says.

    May be called again when the configuration changes.  Libraries may speak from ``warning`` up; at ``debug``, from
    ``info`` up.
    """
    handler = _Handler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    number = LEVELS[level]
    root.setLevel(logging.INFO if number <= logging.DEBUG else max(number, logging.WARNING))
    logging.getLogger(OWN).setLevel(number)
    logging.captureWarnings(True)

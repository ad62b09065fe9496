"""Compiled, the pure modules make of any bytes what their sources make of them, to the word of a refusal."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import fuzz_head
import fuzz_response
import outcomes
from mutate import mutate

from cachelb import compiled

CHUNKED = [b"5\r\nhello\r\n0\r\n\r\n", b"a;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n"]
FIRST = [b"GET http://a.com/x HTTP/1.1\r\nHost: a.com\r\n\r\n", b"http://A.com:80/x#y", b"private, max-age=3\r\nHIT from c"]
SEEDS = [*fuzz_head.REQUESTS, *fuzz_response.ANSWERS, *CHUNKED, *FIRST]
NASTY = [*fuzz_head.NASTY, b"max-age=9999999999999999999999", b"Date: Sat, 21 Nov 2026 00:51:50 GMT\r\n", b"ffffffffffffffff"]


@cache
def other() -> subprocess.Popen[bytes] | None:
    """A process with the compiled modules; None where nothing is compiled."""
    if compiled.problem(compiled.folder()):
        return None
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("outcomes.py"))],
        env={**os.environ, compiled.VARIABLE: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def make(chance: random.Random) -> bytes:
    return mutate(chance, SEEDS, NASTY)


def check(data: bytes) -> str:
    assert not compiled.in_use, "this process must run the sources: CACHELB_COMPILED=0"
    process = other()
    if process is None:
        return "nothing is compiled here"
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(outcomes.LENGTH.pack(len(data)) + data)
    process.stdin.flush()
    answer = process.stdout.read(outcomes.LENGTH.unpack(process.stdout.read(outcomes.LENGTH.size))[0]).decode()
    ours = outcomes.outcomes(data)
    assert answer == ours
    return "refused alike" if ours.startswith("Bad") else "read alike"

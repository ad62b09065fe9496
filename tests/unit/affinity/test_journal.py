"""What two directors tell each other: batches, a bound, and what is understood of another version's words."""

from __future__ import annotations

import asyncio
import json

import pytest

from cachelb.affinity import journal
from cachelb.affinity.journal import Journal, read

RECORD = ["shop", "0a000001", "n1", ""]


def test_what_happens_in_one_turn_is_one_message(monkeypatch: pytest.MonkeyPatch):
    sent: list[bytes] = []

    async def main() -> None:
        subject = Journal(sent.append, lambda: 0)
        for _ in range(5):
            subject.note(RECORD)
        await asyncio.sleep(0)
        subject.note(RECORD)
        await asyncio.sleep(0)

    monkeypatch.setattr(journal, "BATCH", 3)
    asyncio.run(main())
    assert [len(json.loads(payload)) for payload in sent] == [3, 2, 1]
    assert read(sent[2]) == [("shop", b"\x0a\0\0\1", "n1", "")]


def test_what_the_other_one_does_not_read_is_dropped():
    sent: list[bytes] = []

    async def main() -> None:
        subject = Journal(sent.append, lambda: journal.UNREAD_BYTES)
        subject.note(RECORD)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert sent == []


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"5", b"[5]", b"[[]]", b'[["a","zz","b","c"]]', b'[["a","00","b","c"]]', b'[["a","",1,""]]']
)
def test_what_is_no_record_is_left_out(payload: bytes):
    assert read(payload) == []


def test_more_than_is_understood_is_left_alone():
    assert read(json.dumps([[*RECORD, "later"], ["shop", "", "", ""]]).encode()) == [
        ("shop", b"\x0a\0\0\1", "n1", ""),
        ("shop", b"", "", ""),
    ]

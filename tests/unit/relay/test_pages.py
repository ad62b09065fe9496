from __future__ import annotations

import json

import pytest
from fakes import parse_answer_head

from cachelb.errors import Reason
from cachelb.relay import pages

PAGES = [reason for reason in Reason if reason.value.status]


def split(data):
    head, _, body = data.partition(b"\r\n\r\n")
    return parse_answer_head(head + b"\r\n\r\n"), body


@pytest.mark.parametrize("reason", PAGES, ids=lambda reason: reason.label)
def test_every_reason_has_a_whole_page(reason):
    answer, body = split(pages.error_page(reason, "what exactly", b"http://a.test/", "id-1", "name"))
    assert answer.status == reason.value.status
    assert answer.fields[b"content-length"] == str(len(body)).encode()
    assert answer.fields[b"x-request-id"] == b"id-1"
    assert answer.fields[b"cache-control"] == b"no-store"
    assert answer.fields[b"connection"] == b"close"
    assert answer.fields.get(b"proxy-status", b"").endswith(reason.value.proxy_status.encode())
    for text in (b"http://a.test/", reason.label.encode(), b"what exactly", b"id-1", b"name"):
        assert text in body


def test_what_a_client_sent_is_escaped_everywhere():
    evil = "<script>&\"'"
    _, body = split(pages.error_page(Reason.BAD_URL, evil, evil.encode(), evil, evil))
    assert b"<script" not in body
    assert body.count(b"&lt;script&gt;&amp;&quot;&#x27;") == 4


def test_bytes_that_are_no_text_are_shown_somehow():
    answer, body = split(pages.error_page(Reason.BAD_URL, "", b"http://a/\xff\x00", "id", "n\u00e4me"))
    assert len(body) == int(answer.fields[b"content-length"])


def test_a_long_url_does_not_make_a_long_page():
    assert len(pages.error_page(Reason.BAD_URL, "", b"x" * 100_000, "id", "name")) < 4000


@pytest.mark.parametrize("reason", [reason for reason in PAGES if reason.value.status == 503])
def test_unavailable_says_when_to_try_again(reason):
    answer, _ = split(pages.error_page(reason, "", b"", "id", "name"))
    assert int(answer.fields[b"retry-after"]) > 0


def test_an_answer_to_head_has_no_body_but_its_length():
    answer, body = split(pages.error_page(Reason.NO_NODE, "", b"", "id", "name", head_only=True))
    assert body == b""
    assert int(answer.fields[b"content-length"]) > 100


@pytest.mark.parametrize(
    ("keep", "minor", "connection"), [(True, 1, None), (True, 0, b"keep-alive"), (False, 1, b"close"), (False, 0, b"close")]
)
def test_the_connection_goes_on_as_said(keep, minor, connection):
    answer, _ = split(pages.answer(200, [], b"", keep=keep, minor=minor))
    assert answer.fields.get(b"connection") == connection


def test_trace_shows_the_request_without_its_secrets():
    block = b"Host: a\r\nCookie: x\r\nAUTHORIZATION: x\r\nProxy-Authorization: x\r\nAccept: y\r\n"
    answer, body = split(pages.trace_answer(b"TRACE http://a/ HTTP/1.1", block, "1.1 name", keep=True, minor=1))
    assert body == b"TRACE http://a/ HTTP/1.1\r\nHost: a\r\nAccept: y\r\n\r\n"
    assert answer.fields[b"content-type"] == b"message/http"
    assert answer.fields[b"via"] == b"1.1 name"


def test_options_lists_methods():
    answer, body = split(pages.options_answer("1.1 name", keep=True, minor=1))
    assert answer.fields[b"content-length"] == b"0"
    assert b"GET" in answer.fields[b"allow"]
    assert body == b""


def test_unknown_statuses_have_a_phrase_too():
    assert pages.phrase(404) == "Not Found"
    assert pages.phrase(299)


@pytest.mark.parametrize(
    ("counts", "lines"),
    [
        ((2, 2, 1, ()), ["purged from 2 of 2 nodes", "1 of them had it"]),
        ((1, 1, 0, ()), ["purged from 1 of 1 nodes", "none of them had it"]),
        (
            (2, 1, 1, ("cache2 has not confirmed", "caf\u00e9")),
            ["purged from 1 of 2 nodes", "1 of them had it", "cache2 has not confirmed", "caf\u00e9"],
        ),
    ],
)
def test_a_purge_is_answered_for_people_and_for_programs(counts, lines):
    for as_json in (False, True):
        answer, body = split(pages.purge_answer(502, b"http://a/\xe9", *counts, as_json=as_json, keep=True, minor=1))
        assert answer.status == 502
        assert int(answer.fields[b"content-length"]) == len(body)
        if as_json:
            asked, confirmed, found, problems = counts
            assert json.loads(body) == {
                "url": "http://a/\u00e9", "asked": asked, "confirmed": confirmed, "found": found, "problems": list(problems)
            }  # fmt: skip
            assert answer.fields[b"content-type"] == b"application/json"
        else:
            assert body.decode().splitlines() == lines

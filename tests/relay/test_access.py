"""The access log: one line per exchange, and it says what became of it."""

from __future__ import annotations

import json
import time

import pytest
from fakes import get, ok


@pytest.fixture
def logged(make_farm, tmp_path):
    """A farm with an access log, and a function that waits for so many lines of it."""
    path = tmp_path / "access.log"
    farm = make_farm(log={"access": str(path), "access_format": "json"})

    def lines(count):
        farm.wait_until(lambda: path.exists() and path.read_text().count("\n") >= count, f"{count} lines")
        return [json.loads(line) for line in path.read_text().splitlines()]

    return farm, lines


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("X-Cache: HIT from n0", "Content-Type: image/gif"), "TCP_HIT/200 GET CARP/n0 image/gif"),
        (("X-Cache: MISS from n0", "Content-Type: text/html; charset=utf-8"), "TCP_MISS/200 GET CARP/n0 text/html"),
        ((), "TCP_MISS/200 GET CARP/n0 -"),
    ],
)
def test_squids_own_format(make_farm, tmp_path, fields, words):
    path = tmp_path / "access.log"
    farm = make_farm(log={"access": str(path)})
    farm.nodes[0].serve(ok(b"12345", *fields))
    client = farm.connect()
    urls = [farm.url(0) for _ in range(3)]
    client.send(b"".join(map(get, urls)))  # what is kept from line to line is used, too
    answers = [client.read_answer() for _ in urls]
    sizes = [len(answer.head + answer.body) for answer in answers]
    farm.wait_until(lambda: path.read_text().count("\n") == 3, "3 lines")
    outcome, method, hierarchy, mime = words.split()
    for line, url, size in zip(path.read_text().splitlines(), urls, sizes, strict=True):
        at, elapsed, *rest = line.split()
        assert abs(float(at) - time.time()) < 60
        assert 0 <= int(elapsed) < 60_000
        assert rest == ["127.0.0.1", outcome, str(size), method, url, "-", hierarchy, mime]


def test_a_url_that_makes_a_line_too_long_is_cut(make_farm, tmp_path):
    path = tmp_path / "access.log"
    farm = make_farm(log={"access": str(path)}, limits={"url_bytes": 65000, "head_bytes": 130_000})
    for node in farm.nodes:
        node.serve()
    farm.ask("http://a.test/" + "\u00ff" * 31000)
    farm.wait_until(lambda: path.read_text().count("\n") == 1, "a line")
    assert len(path.read_bytes()) < 4000


def test_the_second_owner_is_named(logged):
    farm, lines = logged
    farm.nodes[0].refuse()
    farm.nodes[1].serve()
    assert farm.ask(farm.url(0, 1)).status == 200
    assert "n1" in json.dumps(lines(1)[0])


def test_a_refusal_does_not_speak_of_the_request_before(logged):
    farm, lines = logged
    farm.nodes[0].serve(ok(b"", "X-Cache: HIT from n0"))
    client = farm.connect()
    client.send(get(farm.url(0)) + b"nonsense\r\n\r\n")
    assert client.read_answer().status == 200
    assert client.read_answer().status == 400
    first, second = lines(2)
    assert "n0" in json.dumps(first)
    assert "n0" not in json.dumps(second)
    assert "HIT" not in json.dumps(second)


def test_the_page_and_the_log_share_an_id(logged):
    farm, lines = logged
    answer = farm.ask(farm.url(0), f"Via: 1.1 {farm.via}")
    assert answer.fields[b"x-request-id"].decode() in json.dumps(lines(1)[0])

"""cachelb-digestq, on captured digests and on a server of the test's own."""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cachelb.tools import digestq

from digest import Digest, Geometry, digest_of, pack_digest, parse_digest, store_key

VECTORS = Path(__file__).parents[2] / "vectors" / "digest"
NODE1 = str(VECTORS / "digest-node1-body.bin")
NODE2 = str(VECTORS / "digest-node2-body.bin")
NODE3 = str(VECTORS / "digest-node3-body.bin")
HELD = "http://127.0.0.10:8000/n1/obj0.html?q=0"
FRESH_S = 3600  # of digest-http-response-full.bin
ABSENT = "http://127.0.0.10:8000/absent/2"


def as_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def serve() -> Iterator[Any]:
    """``serve(answer)``: a server for one connection; returns its port and the list its request goes to."""
    threads = []

    def start(answer: bytes) -> tuple[int, list[bytes]]:
        listener = socket.create_server(("127.0.0.1", 0))
        requests: list[bytes] = []

        def once() -> None:
            with listener, listener.accept()[0] as client:
                requests.append(client.recv(4096))
                client.sendall(answer)

        threads.append(threading.Thread(target=once))
        threads[-1].start()
        return listener.getsockname()[1], requests

    yield start
    for thread in threads:
        thread.join(5)


def test_it_shows_the_header_and_estimates(capsys: pytest.CaptureFixture[str]):
    assert digestq.main([NODE1]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"digest            {NODE1}",
        "geometry          capacity 133 at 5 bits per entry",
        "count             133 entries, 0 deleted (as its maker says)",
        "mask              84 bytes, 382 bits set",
        "fill              56.8%",
        "false positives   10.44% (estimated)",
    ]


def test_it_answers_for_urls_given_as_arguments(capsys: pytest.CaptureFixture[str]):
    assert digestq.main([NODE1, HELD]) == 0
    assert f"yes {store_key(HELD.encode()).hex()} {HELD}" in capsys.readouterr().out
    assert digestq.main([NODE1, HELD, ABSENT]) == 1
    assert f"no  {store_key(ABSENT.encode()).hex()} {ABSENT}" in capsys.readouterr().out


def test_it_answers_for_urls_on_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    urls = (VECTORS / "digest-node1-urls.txt").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(urls + b"\n\n")))
    assert digestq.main([NODE1, "-", "--json"]) == 0
    answer = as_json(capsys)
    assert len(answer["urls"]) == len(urls.split()) == 45
    assert all(url["contained"] for url in answer["urls"])


def test_urls_are_made_canonical_before_they_are_looked_up(capsys: pytest.CaptureFixture[str]):
    assert digestq.main(["--json", NODE1, "HTTP://user@127.0.0.10:08000/n1/obj0.html?q=0"]) == 0
    assert as_json(capsys)["urls"] == [{"url": HELD, "key": store_key(HELD.encode()).hex(), "contained": True}]


def test_json_has_all_that_the_text_has(capsys: pytest.CaptureFixture[str]):
    assert digestq.main(["--json", NODE1]) == 0
    assert as_json(capsys) == {
        "sources": [NODE1],
        "capacity": 133,
        "bits_per_entry": 5,
        "count": 133,
        "deleted": 0,
        "mask_bytes": 84,
        "bits_set": 382,
        "fill": pytest.approx(382 / 672, abs=1e-6),
        "false_positives": pytest.approx((382 / 672) ** 4, abs=1e-6),
        "useless": False,
        "urls": [],
    }


def test_digests_of_one_geometry_are_united_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = []
    for number in range(3):
        names.append(str(tmp_path / f"{number}.bin"))
        digest = digest_of(store_key(b"http://a/%d" % number), Geometry(100, 8))
        Path(names[-1]).write_bytes(pack_digest(digest))
    out = tmp_path / "all.bin"
    urls = [f"http://a/{number}" for number in range(3)]
    assert digestq.main([names[0], "--merge", names[1], "--merge", names[2], "-o", str(out), "--json", *urls]) == 0
    assert as_json(capsys)["sources"] == names
    united = parse_digest(out.read_bytes())
    assert united == digest_of(b"".join(store_key(url.encode()) for url in urls), Geometry(100, 8))
    assert digestq.main([str(out), *urls]) == 0
    assert digestq.main([names[0], *urls]) == 1


def test_unequal_geometries_are_a_no_with_both_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "all.bin"
    assert digestq.main([NODE1, "--merge", NODE2, "-o", str(out)]) == 1
    error = capsys.readouterr().err
    assert f"{NODE2} has capacity 129" in error
    assert f"{NODE1} has capacity 133" in error
    assert not out.exists()


def test_a_union_that_a_squid_would_drop_is_a_no(capsys: pytest.CaptureFixture[str]):
    assert digestq.main([NODE1, "--merge", NODE3, HELD]) == 1
    text = capsys.readouterr().out
    assert "too full: a Squid drops it" in text
    assert f"{HELD}" in text


@pytest.mark.parametrize("data", [b"", b"x" * 127, Path(NODE1).read_bytes()[:-1]])
def test_bytes_that_are_no_digest_are_a_no(tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "x"
    path.write_bytes(data)
    assert digestq.main([str(path), "--json"]) == 1
    streams = capsys.readouterr()
    assert "not a cache digest: " in json.loads(streams.out)["error"]
    assert streams.err.startswith(f"cachelb-digestq: {path}: not a cache digest: ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["/nonexistent/x"], "x: No such file or directory\n"),
        (["10.0.0.11:3128"], "a cache is written http://10.0.0.11:3128\n"),
        (["director.example.org"], "a cache is written http://director.example.org\n"),
        (["https://10.0.0.11"], "a cache is written http://10.0.0.11\n"),
        (["/"], "Is a directory"),
        (["a\0b"], "null byte"),
        ([NODE1, "www.example.com"], "not an absolute URL: www.example.com"),
        ([NODE1, "-o", "/nonexistent/x"], "No such file"),
        ([NODE1, "--merge", NODE1], "named twice"),
        (["http://"], "not http://HOST:PORT"),
        (["http://a b:1/"], "a b"),
        (["http://127.0.0.1:99999"], "out of range"),
        (["http://[::1"], "Invalid IPv6"),
        (["http://user@127.0.0.1:1/"], "not http://HOST:PORT"),
        (["http://127.0.0.1:1/a b"], "not http://HOST:PORT"),
    ],
)
def test_what_cannot_be_read_is_trouble_in_one_sentence(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]):
    assert digestq.main(arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["-", "-"], ["--nonsense"], [NODE1, "--timeout", "0"], [NODE1, "--timeout", "x"]])
def test_wrong_usage_is_trouble(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        digestq.main(arguments)
    assert end.value.code == 2
    assert "usage: cachelb-digestq" in capsys.readouterr().err


def test_a_digest_is_fetched_from_a_node(serve: Any, capsys: pytest.CaptureFixture[str]):
    port, requests = serve((VECTORS / "digest-http-response-full.bin").read_bytes())
    assert digestq.main([f"http://127.0.0.1:{port}", "--json"]) == 0
    answer = as_json(capsys)
    assert answer["capacity"] == 82
    assert answer["last_modified"].endswith(" GMT")
    assert answer["fresh_s"] == FRESH_S
    assert requests[0].startswith(b"GET /squid-internal-periodic/store_digest HTTP/1.1\r\n")


def test_it_says_when_a_fetched_digest_was_made_and_when_the_next_is_due(serve: Any, capsys: pytest.CaptureFixture[str]):
    whole = (VECTORS / "digest-http-response-full.bin").read_bytes()
    port, _ = serve(whole)
    assert digestq.main([f"http://127.0.0.1:{port}"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(rf"made {{14}}\w+, \d+ .* GMT; the next one is due {FRESH_S} s after this answer", last), last
    body = whole.partition(b"\r\n\r\n")[2]
    port, _ = serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert digestq.main([f"http://127.0.0.1:{port}"]) == 0
    assert capsys.readouterr().out.endswith("\nmade              no Last-Modified; no Expires, or the next one is due\n")


def test_a_digest_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(NODE1).read_bytes())))
    assert digestq.main(["-", HELD]) == 0
    assert capsys.readouterr().out.startswith("digest            -\n")


def test_a_digest_elsewhere_on_a_node_is_fetched_from_there(serve: Any, capsys: pytest.CaptureFixture[str]):
    digest = pack_digest(Digest.empty(Geometry(1, 8)))
    port, requests = serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(digest) + digest)
    assert digestq.main([f"http://127.0.0.1:{port}/some/where?x=1"]) == 0
    assert requests[0].startswith(b"GET /some/where?x=1 HTTP/1.1\r\n")
    assert "fill              0.0%" in capsys.readouterr().out


def test_a_node_without_a_digest_is_a_no(serve: Any, capsys: pytest.CaptureFixture[str]):
    port, _ = serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert digestq.main([f"http://127.0.0.1:{port}"]) == 1
    assert "no digest there (404)" in capsys.readouterr().err


def test_a_node_that_does_not_answer_is_trouble(serve: Any, capsys: pytest.CaptureFixture[str]):
    port, _ = serve(b"")
    assert digestq.main([f"http://127.0.0.1:{port}"]) == 2
    assert f"127.0.0.1:{port}: closed after 0 bytes" in capsys.readouterr().err

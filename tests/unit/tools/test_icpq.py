"""The tool against a scripted cache in a thread, and its parts alone."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from cachelb.tools.icpq import HTCP_PORT, Result, Trouble, canonical, line, main, resolve, status, summary

from icp import htcp
from icp.errors import BadPacket
from icp.htcp import HtcpOpcode, HtcpReply
from icp.packet import SRC_RTT, Opcode, pack_reply, parse_query


class Cache(threading.Thread):
    """Answers by what is in the URL: hit, denied, silent; else MISS."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.name_and_port = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.asked: list[bytes] = []
        self.sources: list[str] = []

    def run(self) -> None:
        while True:
            data, source = self.sock.recvfrom(65536)
            if not data:
                return
            try:
                query = parse_query(data)
            except BadPacket:
                self.answer_htcp(htcp.parse_query(data), source)
                continue
            self.asked.append(query.url)
            self.sources.append(source[0])
            words = {b"hit": Opcode.HIT, b"denied": Opcode.DENIED, b"silent": None}
            opcode = next((opcode for word, opcode in words.items() if word in query.url), Opcode.MISS)
            if opcode is not None:
                reply = pack_reply(opcode, query.reqnum, query.url, (4, 30) if query.flags & SRC_RTT else None)
                self.sock.sendto(reply, source)

    def answer_htcp(self, query: htcp.HtcpQuery, source: tuple[str, int]) -> None:
        self.asked.append(query.what.url)
        is_known = b"hit" in query.what.url
        response = {HtcpOpcode.TST: (1, 0), HtcpOpcode.CLR: (2, 0)}[query.opcode][is_known]
        response = 1 if b"kept" in query.what.url else response
        reply = HtcpReply(query.opcode, query.msg_id, response, is_refusal=b"refused" in query.what.url)
        if b"silent" not in query.what.url:
            self.sock.sendto(htcp.pack_reply(reply), source)

    def stop(self) -> None:
        self.sock.sendto(b"", self.sock.getsockname())
        self.join(5)
        self.sock.close()


@pytest.fixture
def cache() -> Iterator[Cache]:
    made = Cache()
    made.start()
    yield made
    made.stop()


def test_a_hit_is_0(cache: Cache, capsys: pytest.CaptureFixture[str]):
    assert main([cache.name_and_port, "http://a/hit"]) == 0
    assert capsys.readouterr().out.startswith("HIT http://a/hit ")


@pytest.mark.parametrize(("url", "word"), [("http://a/x", "MISS"), ("http://a/denied", "DENIED")])
def test_any_other_answer_is_1(cache: Cache, capsys: pytest.CaptureFixture[str], url: str, word: str):
    assert main([cache.name_and_port, url]) == 1
    assert capsys.readouterr().out.startswith(f"{word} {url} ")


def test_no_answer_is_2(cache: Cache, capsys: pytest.CaptureFixture[str]):
    assert main([cache.name_and_port, "http://a/silent", "--timeout", "0.03"]) == 2
    place = cache.name_and_port.replace(":", " port ")
    assert capsys.readouterr().out == f"no answer from {place} within 0.03 s: http://a/silent\n"


@pytest.mark.parametrize("arguments", [[], ["--htcp"], ["--clear"], ["--source", "127.0.0.55"]])
def test_a_port_where_nothing_listens_is_told_at_once(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    urls = [f"http://a/{number}" for number in range(1000)]
    assert main([f"127.0.0.1:{port}", *urls, "--timeout", "0.03", *arguments]) == 2
    assert capsys.readouterr().err == f"cachelb-icpq: nothing listens at 127.0.0.1 port {port} (UDP)\n"


def test_each_answer_is_printed_when_it_comes(cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    shown: list[str] = []

    def stop_after_two(*arguments: object, **more: object) -> None:
        shown.append(" ".join(map(str, arguments)))
        if len(shown) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", stop_after_two)
    assert main([cache.name_and_port, "http://a/hit", "--count", "1000"]) == 2
    assert [text.split()[0] for text in shown] == ["HIT", "HIT", "2"]
    assert shown[2].startswith("2 queries: 2 HIT; ")


@pytest.mark.parametrize(("word", "answer", "code"), [("hit", "HIT", 0), ("x", "MISS", 1), ("refused", "REFUSED", 1)])
def test_htcp_asks_the_same_with_other_packets(
    cache: Cache, capsys: pytest.CaptureFixture[str], word: str, answer: str, code: int
):
    assert main([cache.name_and_port, f"http://a/{word}", "--htcp"]) == code
    assert capsys.readouterr().out.startswith(f"{answer} http://a/{word} ")


@pytest.mark.parametrize(
    ("word", "answer", "code"), [("hit", "GONE", 0), ("x", "ABSENT", 1), ("kept", "KEPT", 1), ("silent", "no", 2)]
)
def test_a_url_is_cleared_by_htcp(cache: Cache, capsys: pytest.CaptureFixture[str], word: str, answer: str, code: int):
    assert main([cache.name_and_port, f"http://a/{word}", "--clear", "--timeout", "0.03"]) == code
    assert capsys.readouterr().out.startswith(f"{answer} ")
    assert cache.asked[0] == b"http://a/" + word.encode()


def test_a_url_that_no_packet_carries_is_told(cache: Cache, capsys: pytest.CaptureFixture[str]):
    assert main([cache.name_and_port, "--raw", "x" * 8190, "--htcp"]) == 2
    assert "a packet of" in capsys.readouterr().err


def test_urls_are_sent_as_squid_stores_them(cache: Cache):
    main([cache.name_and_port, "HTTP://A.com:80/X"])
    main([cache.name_and_port, "--raw", "HTTP://A.com:80/X"])
    assert cache.asked == [b"http://a.com/X", b"HTTP://A.com:80/X"]


def test_counting_ends_with_a_line_that_sums_up(cache: Cache, capsys: pytest.CaptureFixture[str]):
    assert main([cache.name_and_port, "http://a/hit", "http://a/x", "--count", "3"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[-1].startswith("6 queries: 3 HIT, 3 MISS; median ")


def test_json_has_every_query_and_the_sum(cache: Cache, capsys: pytest.CaptureFixture[str]):
    assert main([cache.name_and_port, "http://a/hit", "http://a/silent", "--json", "--timeout", "0.03", "--rtt"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["server"] == cache.name_and_port.replace(":", " port ")
    hit, silent = answer["queries"]
    assert (hit["url"], hit["reply"], hit["origin_hops"], hit["origin_ms"]) == ("http://a/hit", "HIT", 4, 30)
    assert silent == {"url": "http://a/silent", "reply": None, "ms": None}
    assert answer["summary"]["replies"] == {"HIT": 1, "no answer": 1}


def test_urls_come_from_standard_input_too(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"http://a/hit\n\n  http://a/hit2\r\n")))
    assert main([cache.name_and_port, "-"]) == 0
    assert cache.asked == [b"http://a/hit", b"http://a/hit2"]


def test_the_source_address_can_be_chosen(cache: Cache):
    assert main([cache.name_and_port, "http://a/hit", "--source", "127.0.0.55"]) == 0
    assert cache.sources == ["127.0.0.55"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["127.0.0.1", "no url"], "no url: not a URL"),
        (["127.0.0.1:x", "http://a/"], "the port must be a number"),
        (["127.0.0.1:70000", "http://a/"], "the port must be a number"),
        (["127.0.0.1", "--raw", "x" * 8192], "8192 bytes; ICP carries at most 8191"),
        (["[::1", "http://a/"], "write [ADDRESS] or [ADDRESS]:PORT"),
        (["[::1]9", "http://a/"], "write [ADDRESS] or [ADDRESS]:PORT"),
        (["a..b", "http://a/"], "no address found"),
        (["", "http://a/"], "no host: no address found"),
        (["http://127.0.0.1:3128", "http://a/"], "write HOST or HOST:PORT"),
        (["127.0.0.1", "http://a/", "--source", "192.0.2.1"], "--source 192.0.2.1: "),
    ],
)
def test_what_cannot_be_asked_is_a_sentence_and_2(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("cachelb-icpq: ")
    assert text in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["127.0.0.1"], ["h", "u", "--count", "0"], ["h", "u", "--timeout", "nan"], ["h", "u", "--htcp", "--rtt"]]
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_no_url_on_standard_input_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    assert main(["127.0.0.1", "-"]) == 2
    assert "no URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("127.0.0.1", ("127.0.0.1", 3130)),
        ("127.0.0.1:9", ("127.0.0.1", 9)),
        ("::1", ("::1", 3130)),
        ("[::1]", ("::1", 3130)),
        ("[::1]:9", ("::1", 9)),
    ],
)
def test_servers_are_named_in_the_usual_ways(server: str, address: tuple[str, int]):
    assert resolve(server) == address


def test_htcp_has_a_port_of_its_own():
    assert resolve("127.0.0.1", HTCP_PORT) == ("127.0.0.1", 4827)
    assert resolve("127.0.0.1:9", HTCP_PORT) == ("127.0.0.1", 9)


def test_canonical_or_trouble():
    assert canonical(b"HTTP://A.com") == b"http://a.com/"
    with pytest.raises(Trouble):
        canonical(b"/x")


def test_the_worst_reply_decides_the_exit_status():
    hit, miss, none = Result("u", "HIT", 1.0), Result("u", "MISS", 1.0), Result("u", None, None)
    assert [status(results) for results in ([hit], [hit, miss], [hit, miss, none])] == [0, 1, 2]


def test_summary_without_answers_has_no_times():
    assert summary([Result("u", None, None)]) == {"queries": 1, "answers": 0, "replies": {"no answer": 1}}


def test_the_way_to_the_origin_is_shown():
    assert line(Result("u", "MISS", 1.0, (4, 30)), ("10.0.0.1", 3130), 1) == "MISS u 1.00 ms; origin 4 hops, 30 ms away"


def test_trouble_is_json_where_json_is_wanted(capsys: pytest.CaptureFixture[str]):
    assert main(["127.0.0.1:x", "http://a/", "--json"]) == 2
    assert "must be a number" in json.loads(capsys.readouterr().out)["error"]


def test_help_has_examples(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "cachelb-icpq 10.0.0.11 http://example.com/a " in capsys.readouterr().out

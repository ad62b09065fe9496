from __future__ import annotations

from pathlib import Path

import pytest
from cachelb.tools.bench.load import LUA, SCENARIOS, Answers, parse_wrk, wrk_command

# wrk 4.1.0, as printed
WRK = """Running 1s test @ http://127.0.0.1:18001
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.20ms    2.08ms  29.71ms   91.04%
    Req/Sec    27.63k     5.33k   33.85k    70.00%
  Latency Distribution
     50%  635.00us
     75%    1.01ms
     90%    2.45ms
     99%   10.56ms
  27529 requests in 1.01s, 19.53MB read
Requests/sec:  27392.10
Transfer/sec:     19.43MB
"""


def test_the_summary_of_wrk_is_read():
    assert parse_wrk(WRK) == Answers(27529, 27392.10, "635.00us", "10.56ms", 0, "")


def test_bad_answers_and_socket_errors_are_read():
    errors = "  Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 17\nRequests/sec:"
    answers = parse_wrk(WRK.replace("Requests/sec:", errors))
    assert (answers.bad, answers.errors) == (17, "connect 0, read 3, write 0, timeout 1")


@pytest.mark.parametrize("duration", ["1.00m", "999.00ms", "10.01s"])
def test_runs_of_any_duration_are_counted(duration: str):
    assert parse_wrk(WRK.replace("1.01s,", f"{duration},")).requests == 27529


def test_output_without_a_summary_is_a_run_without_requests():
    assert parse_wrk("unable to connect to 127.0.0.1:18001 Connection refused\n") == Answers(0, 0.0, "-", "-", 0, "")


def test_the_command_says_scenario_and_ending_to_the_script():
    command = wrk_command(18004, SCENARIOS["close"], 3, Path("/x/load.lua"))
    assert command[command.index("--") + 1 :] == ["close", "close", "1000", "0", "none"]
    assert wrk_command(18004, SCENARIOS["many"], 3, Path("/x"))[-5:] == ["many", "keep", "1000", "0", "none"]
    assert {"-c32", "-d3s", "http://127.0.0.1:18004"} <= set(command)


def test_more_urls_and_threads_can_be_asked_for():
    command = wrk_command(18004, SCENARIOS["small"]._replace(urls=10_000_000), 3, Path("/x"), threads=2)
    assert command[-3:] == ["10000000", "0", "none"]
    assert "-t2" in command


def test_cookies_can_be_asked_for():
    scenario = SCENARIOS["small"]._replace(cookies=True)
    assert wrk_command(18004, scenario, 3, Path("/x"))[-1] == "cookies"
    assert scenario.title.endswith("each with a cookie of its own")


def test_titles_name_what_is_special():
    assert SCENARIOS["close"].title == "close: 400 bytes, 32 connections, one request each"
    assert SCENARIOS["chunked"].title == "chunked: 8192 bytes in chunks, 16 connections"
    assert SCENARIOS["1m"].title == "1m: 1048576 bytes, 8 connections"


def test_the_script_ends_lines_as_http_does():
    assert LUA.count(r"\r\n") >= 7
    assert "%%" not in LUA

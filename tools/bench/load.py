"""What is asked of a front end, and the load generator that asks: wrk with a script of browser-like requests.

There are 1,000 different URLs, asked in turn, unless more are wanted; then each is drawn at random, so that none of a
million comes twice before the others (the worst case for everything that remembers).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class Scenario(NamedTuple):
    """bytes: of each answer's body.  connections: of the load generator.  close: each carries one request only.

    chunked: the answers have no length.  urls: how many different ones.  pause_ms: on average, between an answer and the
    next request of its connection.  cookies: each request has one of its own, so that no two have the same fields.
    """

    name: str
    bytes: int
    connections: int
    close: bool = False
    chunked: bool = False
    urls: int = 1000
    pause_ms: int = 0
    cookies: bool = False

    @property
    def title(self) -> str:
        """One line for people."""
        return (
            f"{self.name}: {self.bytes} bytes{' in chunks' * self.chunked}, {self.connections} connections"
            + ", one request each" * self.close
            + f", {self.pause_ms} ms between requests" * bool(self.pause_ms)
            + ", each with a cookie of its own" * self.cookies
        )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("small", 400, 32),
        Scenario("close", 400, 32, close=True),
        Scenario("chunked", 8 << 10, 16, chunked=True),
        Scenario("8k", 8 << 10, 16),
        Scenario("64k", 64 << 10, 8),
        Scenario("1m", 1 << 20, 8),
        Scenario("10m", 10 << 20, 4),
        Scenario("many", 400, 256),
    )
}

# Requests as a child Squid forwards them: absolute URLs of 97 hosts, Via, X-Forwarded-For.
LUA = r"""
local reqs, i, path, urls, tail, cookies = {}, 0
local function url(n) return "http://www.site" .. (n % 97) .. ".example.com/" .. path .. "/obj" .. n .. ".gif" end
local function whole(n)
  return "GET " .. url(n) .. " HTTP/1.1\r\nHost: www.site" .. (n % 97) .. ".example.com" ..
    "\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:109.0)\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate" ..
    "\r\nVia: 1.1 child.example.com (squid/5.7)\r\nX-Forwarded-For: 10.0.0." .. (n % 50) ..
    (cookies and "\r\nCookie: theme=dark; id=" .. math.random(1e9) or "") ..
    "\r\nCache-Control: max-age=259200\r\nConnection: " .. tail .. "\r\n\r\n"
end
init = function(args)
  path, tail, urls = args[1], args[2] == "close" and "close" or "keep-alive", tonumber(args[3])
  cookies = args[5] == "cookies"
  math.randomseed(os.time())
  for k = 1, 1000 do reqs[k] = whole(k) end
  local pause = tonumber(args[4])
  if pause > 0 then delay = function() return math.random(0, 2 * pause) end end
  if urls > 1000 or cookies then request = function() return whole(math.random(urls)) end end
end
request = function() i = i % 1000 + 1; return reqs[i] end
"""


class Answers(NamedTuple):
    """What wrk says about one run.  p50 and p99 as wrk writes them; errors: its line on socket errors, mostly empty."""

    requests: int
    rps: float
    p50: str
    p99: str
    bad: int
    errors: str


def wrk_command(port: int, scenario: Scenario, seconds: int, script: Path, threads: int = 1) -> list[str]:
    """The command that loads 127.0.0.1:``port`` for ``seconds``."""
    options = [f"-t{threads}", f"-c{scenario.connections}", f"-d{seconds}s", "--latency", "--timeout", "10s", "-s", str(script)]
    ending = "close" if scenario.close else "keep"
    arguments = [scenario.name, ending, str(scenario.urls), str(scenario.pause_ms), "cookies" if scenario.cookies else "none"]
    return ["wrk", *options, f"http://127.0.0.1:{port}", "--", *arguments]


def parse_wrk(output: str) -> Answers:
    """Read what wrk printed; a run without a summary counts as one without requests."""

    def find(pattern: str, otherwise: str) -> str:
        match = re.search(pattern, output, re.MULTILINE)
        return match[1] if match else otherwise

    return Answers(
        requests=int(find(r"(\d+) requests in [\d.]+(?:ms|s|m)", "0")),
        rps=float(find(r"Requests/sec:\s+([\d.]+)", "0")),
        p50=find(r"^\s+50%\s+(\S+)", "-"),
        p99=find(r"^\s+99%\s+(\S+)", "-"),
        bad=int(find(r"Non-2xx or 3xx responses: (\d+)", "0")),
        errors=find(r"Socket errors: (.*)", ""),
    )

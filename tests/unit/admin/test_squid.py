"""The cache manager's pages, read as the programs read them that exist for Squid."""

from __future__ import annotations

import os
import re

import pytest
from fakes_admin import with_supervisor

from cachelb.admin.squid import used
from cachelb.counters import FARM_INDEX, NODE_INDEX, node_offset
from cachelb.supervisor import Supervisor
from cachelb.workers import Workers

# Every name on Squid 5.7's page of counters, in its order (seen there, 2026-11).
NAMES: list[str] = """
client_http.requests client_http.hits client_http.errors client_http.kbytes_in client_http.kbytes_out client_http.hit_kbytes_out
server.all.requests server.all.errors server.all.kbytes_in server.all.kbytes_out server.http.requests server.http.errors
server.http.kbytes_in server.http.kbytes_out server.ftp.requests server.ftp.errors server.ftp.kbytes_in server.ftp.kbytes_out
server.other.requests server.other.errors server.other.kbytes_in server.other.kbytes_out icp.pkts_sent icp.pkts_recv
icp.queries_sent icp.replies_sent icp.queries_recv icp.replies_recv icp.query_timeouts icp.replies_queued icp.kbytes_sent
icp.kbytes_recv icp.q_kbytes_sent icp.r_kbytes_sent icp.q_kbytes_recv icp.r_kbytes_recv icp.times_used cd.times_used cd.msgs_sent
cd.msgs_recv cd.memory cd.local_memory cd.kbytes_sent cd.kbytes_recv unlink.requests page_faults select_loops cpu_time wall_time
swap.outs swap.ins swap.files_cleaned aborted_requests
""".split()  # noqa: SIM905


def pages(*names: str) -> list[str]:
    """The pages of a director of three nodes that has relayed something."""
    found: list[str] = []

    async def test(supervisor: Supervisor) -> None:
        supervisor.workers = Workers([[]], b"")
        block = supervisor.workers.blocks[0]
        supervisor.started_at -= 120
        supervisor.desk.take(1.0)
        block[FARM_INDEX["requests"]], block[FARM_INDEX["hits"]], block[FARM_INDEX["clients_open"]] = 600, 150, 7
        start = node_offset(supervisor.farm.slots["a"])
        for name, value in {"requests": 500, "ended": 498, "connects": 50, "idle": 3}.items():
            block[start + NODE_INDEX[name]] = value
        found.extend(supervisor.desk.manager.page(name) for name in names)

    with_supervisor(test)
    return found


def test_counters_are_those_of_squid_in_its_order():
    (text,) = pages("counters")
    first, *lines = text.splitlines()
    assert re.fullmatch(r"sample_time = \d+\.\d{6} \(\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\)", first)
    pairs = [re.fullmatch(r"([a-z_.]+) = ([0-9.]+)", line) for line in lines]
    assert all(pairs)
    assert [pair[1] for pair in pairs if pair] == NAMES
    values = {pair[1]: float(pair[2]) for pair in pairs if pair}
    assert (values["client_http.requests"], values["client_http.hits"]) == (600, 150)


def test_averages_are_per_second_and_every_line_is_a_number():
    for text in pages("5min", "60min"):
        start, end, *lines = text.splitlines()
        assert start.startswith("sample_start_time = ")
        assert end.startswith("sample_end_time = ")
        unit = r"(/sec|/fd| seconds|%|)"
        assert [line for line in lines if not re.fullmatch(r"[a-z_.]+ = -?\d+\.\d{6}" + unit, line)] == []
        assert len(lines) == 71
        names = [line.partition(" = ")[0] for line in lines]
        assert names.index("icp.query_timeouts") == names.index("icp.replies_queued") + 1


def exporter_info(text: str) -> dict[str, float]:
    """As exporters read it: "name: value", the first number of the value; lines of the last part begin with their number."""
    found = {}
    for line in text.splitlines():
        name, colon, value = line.strip().partition(":")
        number = re.search(r"-?\d+(\.\d+)?", value)
        if colon and number:
            found[name] = float(number[0])
        elif last := re.fullmatch(r"\s*(\d+) ([A-Za-z -]+)", line):
            found[last[2]] = float(last[1])
    return found


def test_info_has_what_exporters_look_for():
    (text,) = pages("info")
    found = exporter_info(text)
    assert found["Number of clients accessing cache"] == 7
    assert found["Number of HTTP requests received"] == 600
    assert found["Average HTTP requests per minute since start"] == pytest.approx(300, rel=0.05)
    assert found["UP Time"] == pytest.approx(120, abs=5)
    assert {
        "Number of ICP messages received", "Request failure ratio", "CPU Time", "CPU Usage", "CPU Usage, 5 minute avg",
        "Maximum Resident Size", "Storage Swap size", "Storage Mem capacity", "Maximum number of file descriptors",
        "Number of file desc currently in use", "StoreEntries", "on-disk objects", "Page faults with physical i/o",
    } <= set(found)  # fmt: skip
    assert re.search(r"\tHits as % of all requests:\t5min: \d+\.\d%, 60min: \d+\.\d%", text)
    assert re.search(r"\tHTTP Requests \(All\): +\d\.\d{5} +\d\.\d{5}\n", text)


def test_service_times_have_19_percentiles_of_each_kind():
    (text,) = pages("service_times")
    lines = text.splitlines()[1:]
    assert len(lines) == 7 * 19
    assert all(re.fullmatch(r"\t[A-Z][A-Za-z() -]+: +\d+% +\d+\.\d{5} +\d+\.\d{5}", line) for line in lines)


def test_nodes_are_listed_as_parents():
    (text,) = pages("server_list")
    first, *others = text.strip().split("\n\n")
    values = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    assert len(others) == 2
    assert (values["Parent"], values["Status"], values["FETCHES"], values["OPEN CONNS"]) == ("a", "Up", "500", "5")
    assert (values["Host"], values["keep-alive ratio"], values["Address[0]"]) == ("127.0.0.1/3128/3130", "90%", "127.0.0.1")
    assert "Status     : Down" in others[1]


def test_the_menu_names_every_page_and_no_other_is_there():
    menu, nothing, digest = pages("menu", "objects", "store_digest")
    names = re.findall(r"^ (\w+) +\t[^\t]+\tpublic$", menu, re.MULTILINE)
    assert {"info", "counters", "5min", "60min", "server_list", "store_digest", "menu"} <= set(names)
    assert all(pages(*names))
    assert nothing == ""
    assert digest.startswith("store digest: size: 0 bytes\n\t entries: count: 0 capacity: 0 util: 0%\n")


def test_cpu_time_is_that_of_all_processes():
    alone = used([])
    assert used([os.getpid()]).cpu_s > alone.cpu_s * 1.2
    assert used([2**22 + 1]).cpu_s < alone.cpu_s + 1  # one that has gone

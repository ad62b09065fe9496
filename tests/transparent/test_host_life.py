"""What a director sets on its host is there while it runs, and nothing is left of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from live_director import wait_until
from netbed import Bed

from cachelb.demo.director import Director, DirectorError
from cachelb.demo.leash import Leash

Start = Callable[..., Director]

SECTIONS = """
[hostnet]
addresses = ["10.77.1.100 dev client", "fd00:77:0:1::100 dev client"]
[intercept]
listen = ["127.0.0.1:3129", "[::1]:3129"]
"""


def test_start_kill_start_and_stop_leave_the_host_as_it_was(bed: Bed, start: Start):
    before = bed.router.snapshot()
    director = start(SECTIONS)
    running = bed.router.snapshot()
    assert "inet 10.77.1.100/32" in running
    assert "inet6 fd00:77:0:1::100/128" in running
    assert running.count("fwmark 0x2000/0x2000 lookup 3128") == 2
    assert "tproxy ip6 to [::1]:3129" in running

    director.kill()
    assert bed.router.snapshot() == running
    with bed.router:
        director.start()
    assert bed.router.snapshot() == running

    assert director.stop() == 0
    assert bed.router.snapshot() == before


def test_a_crash_of_the_configuration_leaves_nothing_either(bed: Bed, start: Start):
    before = bed.router.snapshot()
    director = start(SECTIONS.replace("[hostnet]", "[hostnet]\npriority = 77\n").replace("3129", "3180"), ready=False)
    with bed.router, pytest.raises(DirectorError):
        director.start()  # two listeners on one port
    assert bed.router.snapshot() == before


def test_leftovers_of_another_configuration_are_cleared(bed: Bed, start: Start):
    before = bed.router.snapshot()
    director = start(SECTIONS)
    director.kill()
    config = director.config_path.read_text()
    changed = config.replace("[hostnet]", "[hostnet]\npriority = 77\ntable = 88\nmark = 0x100")
    director.write_config(changed.replace(".100", ".101"))
    with bed.router:
        director.start()
    running = bed.router.snapshot()
    assert "10.77.1.100" not in running
    assert "10.77.1.101" in running
    assert "lookup 3128" not in running
    assert running.count("fwmark 0x100/0x100 lookup 88") == 2
    assert director.stop() == 0
    assert bed.router.snapshot() == before


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("ip rule add priority 3128 fwmark 7 lookup 9", 'rule 3128 is somebody else\'s: "fwmark 0x7/0xffffffff lookup 9"'),
        ("ip addr add 10.77.1.100/24 dev origin", "10.77.1.100 is an address of origin already"),
        ("ip -6 addr add fd00:77:0:1::100/64 dev origin", "fd00:77:0:1::100 is an address of origin already"),
        ("ip route add local 10.0.0.0/8 dev lo table 3128", "table 3128 has a route of somebody else"),
        ("nft add table inet cachelb", "there is an nftables table inet cachelb already"),
    ],
)
def test_what_is_somebody_elses_is_refused_and_not_touched(bed: Bed, start: Start, made: str, said: str):
    bed.router.run(*made.split())
    before = bed.router.snapshot()
    director = start(SECTIONS, ready=False)
    with bed.router, pytest.raises(DirectorError):
        director.start()
    assert said in director.log()
    assert "Traceback" not in director.log()
    assert bed.router.snapshot() == before


@pytest.mark.parametrize("address", ["10.77.1.100", "fd00:77:0:1::100"])
def test_an_address_that_another_host_of_the_network_has_is_refused(bed: Bed, start: Start, address: str):
    with bed.router:
        bed.router.sysctl("net.ipv6.conf.client.accept_dad", "1")
    bed.client.add_address("eth0", address, 64 if ":" in address else 24)
    before = bed.router.snapshot()
    director = start(SECTIONS, ready=False)
    with bed.router, pytest.raises(DirectorError):
        director.start()
    assert f"{address} is in use: " in director.log()
    assert bed.router.snapshot() == before


def test_one_director_for_a_host(bed: Bed, start: Start):
    start(SECTIONS)
    running = bed.router.snapshot()
    second = start(SECTIONS, ready=False)
    with bed.router, pytest.raises(DirectorError):
        second.start()
    assert "has addresses or rules on this host" in second.log()
    assert bed.router.snapshot() == running


def test_what_somebody_flushes_is_put_back(bed: Bed, start: Start):
    director = start(SECTIONS)
    running = bed.router.snapshot()
    bed.router.run("nft", "flush", "ruleset")
    bed.router.run("ip", "addr", "del", "10.77.1.100/32", "dev", "client")
    wait_until(lambda: "it is as it should be again" in director.log())
    assert sorted(bed.router.snapshot().splitlines()) == sorted(running.splitlines())


def test_an_upgrade_keeps_it_and_the_new_one_takes_it_back(bed: Bed, start: Start, leash: Leash):
    before = bed.router.snapshot()
    director = start(SECTIONS)
    old = director.pid
    running = bed.router.snapshot()
    director.signal(signal.SIGUSR2)
    wait_until(lambda: "this one finishes what it has begun" in director.log())
    assert director.wait() == 0
    assert bed.router.snapshot() == running
    new = int(director.log().partition("upgrade: process ")[2].split()[0])
    assert new != old
    leash.watch(new)
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: bed.router.snapshot() == before)

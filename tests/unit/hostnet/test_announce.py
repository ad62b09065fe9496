from __future__ import annotations

import socket
from pathlib import Path

import pytest
from netbed import Space

from cachelb.hostnet.announce import Announcer, advertisement, arp_probe, gratuitous_arp, hardware, owner_in, probe

MAC = bytes.fromhex("020000000001")
HOST = "10.0.0.100"


def test_a_gratuitous_arp_is_as_rfc_5227_has_it():
    request = gratuitous_arp(MAC, HOST, 1)
    assert request == bytes.fromhex(
        "ffffffffffff 020000000001 0806  0001 0800 06 04 0001  020000000001 0a000064 000000000000 0a000064"
    )
    assert gratuitous_arp(MAC, HOST, 2)[20:22] == b"\0\2"


def test_a_probe_says_nothing_of_who_asks():
    frame = arp_probe(MAC, HOST)
    assert frame[28:32] == bytes(4)
    assert frame[38:42] == socket.inet_aton(HOST)


def test_an_advertisement_is_unsolicited_and_overrides():
    packet = advertisement(MAC, "fd00::100")
    assert packet[:8] == bytes.fromhex("88 00 0000 20000000")
    assert packet[8:24] == socket.inet_pton(socket.AF_INET6, "fd00::100")
    assert packet[24:] == b"\2\1" + MAC


def test_only_another_host_that_has_the_address_is_its_owner():
    other = bytes.fromhex("020000000002")
    assert owner_in(gratuitous_arp(other, HOST, 2), MAC, HOST) == "02:00:00:00:00:02"
    assert owner_in(gratuitous_arp(MAC, HOST, 2), MAC, HOST) == ""
    assert owner_in(gratuitous_arp(other, "10.0.0.1", 2), MAC, HOST) == ""
    assert owner_in(arp_probe(other, HOST), MAC, HOST) == ""
    whole = gratuitous_arp(other, HOST, 2)
    for size in range(len(whole)):
        assert owner_in(whole[:size], MAC, HOST) == ""


def mac_of(interface: str) -> str:
    return Path(f"/sys/class/net/{interface}/address").read_text().strip()


def test_who_is_on_the_link_hears_of_the_addresses(space: Space):
    space.add_address("veth0", HOST, 32)
    space.run("ip", "-6", "addr", "add", "fd00::100/128", "dev", "veth0")
    macs = {line.split()[1].split("@")[0].rstrip(":"): line.split("link/ether ")[1].split()[0] for line in
            space.run("ip", "-o", "link").splitlines() if "link/ether" in line}  # fmt: skip
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:  # ETH_P_ALL
        ear.bind(("veth1", 3))
        ear.settimeout(5.0)
        announcer = Announcer([(HOST, "veth0", macs["veth0"]), ("fd00::100", "veth0", macs["veth0"])])
        announcer.send()
        mac, heard = hardware(macs["veth0"]), set()
        wanted = {gratuitous_arp(mac, HOST, 1), gratuitous_arp(mac, HOST, 2), "advertisement"}
        while heard != wanted:
            frame, to = ear.recvfrom(2048)
            if frame in wanted:
                heard.add(frame)
            elif frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88" and frame[62:78] == socket.inet_pton(10, "fd00::100"):
                assert frame[21] == 255  # hop limit
                assert frame[6:12] == mac
                heard.add("advertisement")
        announcer.close()
        assert to[0] == "veth1"


def test_the_network_is_asked_who_has_an_address(space: Space):
    # both ends of the link are on this host, and each answers for its own addresses only
    for name in ("all", "veth0", "veth1"):
        space.sysctl(f"net.ipv4.conf.{name}.arp_ignore", "1")
    macs = {line.split()[1].split("@")[0].rstrip(":"): line.split("link/ether ")[1].split()[0] for line in
            space.run("ip", "-o", "link").splitlines() if "link/ether" in line}  # fmt: skip
    assert probe(HOST, "veth0", macs["veth0"]) == ""
    space.add_address("veth1", HOST, 24)
    assert probe(HOST, "veth0", macs["veth0"]) == macs["veth1"]


def test_what_cannot_be_opened_is_told(space: Space):
    with pytest.raises(OSError, match="No such device"):
        Announcer([(HOST, "veth7", "02:00:00:00:00:01")])

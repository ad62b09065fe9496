"""Hosts of a small network, each a network namespace, for tests of what the director does on its host.

    client --- router --- origin          every host but the router has its default route there
                  \\------ node1, node2 ...

    with Bed(nodes=3) as bed:
        with bed.router:                   # what is opened or started here is on the router
            director = subprocess.Popen(...)
        bed.client.run("curl", "http://[fd00:0:0:2::2]/")

A namespace has no name: it is kept by a descriptor of this process, so it goes with it, however that ends, and tests at the same
time do not meet.  Addresses: host number H behind link number L is 10.77.L.H and fd00:77:0:L::H; the router is 1 on every link.
Works as root, and in a user namespace of its own (unshare -Urn).
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from pyroute2 import IPRoute

from cachelb.demo.squid import wait_until

SETTLE_S = 30.0
_NEWNET = 0x40000000  # CLONE_NEWNET
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


class Space:
    """One host.  Entered, it is where this thread is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.v4 = self.v6 = ""
        self._outside: list[int] = []
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("unshare", _NEWNET)
            try:
                self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                # duplicate address detection takes seconds, and there are no duplicates but where a test makes them
                self.sysctl("net.ipv6.conf.all.accept_dad", "0")
                self.sysctl("net.ipv6.conf.default.accept_dad", "0")
                with IPRoute() as ip:
                    ip.link("set", index=1, state="up")
            finally:
                _call("setns", before, _NEWNET)
        finally:
            os.close(before)

    def __enter__(self) -> Space:
        self._outside.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        _call("setns", self.fd, _NEWNET)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        outside = self._outside.pop()
        _call("setns", outside, _NEWNET)
        os.close(outside)

    def run(self, *words: str, ok: bool = True, **options: object) -> str:
        """Run a program there; what it printed."""
        with self:
            done = subprocess.run(words, capture_output=True, text=True, errors="surrogateescape", timeout=60, **options)  # type: ignore
        assert not ok or done.returncode == 0, (words, done.stdout, done.stderr)
        return str(done.stdout)

    def sysctl(self, name: str, value: str) -> None:
        """Set a variable of the kernel there; must be entered."""
        Path("/proc/sys", *name.split(".")).write_text(value)

    def add_address(self, interface: str, host: str, prefix: int) -> None:
        with self, IPRoute() as ip:
            ip.addr("add", index=ip.link_lookup(ifname=interface)[0], address=host, prefixlen=prefix)

    def settle(self) -> None:
        """Wait until the kernel has done what it does by itself once an interface is up: carrier, own address, routes."""
        assert wait_until(lambda: not self._unready(), SETTLE_S), f"{self.name}: {self._unready()}"

    def _unready(self) -> list[str]:
        links = [link for link in json.loads(self.run("ip", "-j", "addr")) if "UP" in link["flags"] and link["ifname"] != "lo"]
        routes = self.run("ip", "-6", "route", "show", "table", "local")

        def is_ready(link: dict[str, Any]) -> bool:
            own = [address for address in link["addr_info"] if address["scope"] == "link" and not address.get("tentative")]
            return link["operstate"] == "UP" and any(f"local {address['local']} " in routes for address in own)

        return [link["ifname"] for link in links if not is_ready(link)]

    def snapshot(self) -> str:
        """All that a director could change there, as an operator sees it."""
        commands = (
            "ip addr", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "nft list ruleset",
        )  # fmt: skip
        return "\n".join(f"$ {command}\n{self.run(*command.split())}" for command in commands)

    def close(self) -> None:
        os.close(self.fd)


class Bed:
    """The network."""

    def __init__(self, nodes: int = 0) -> None:
        self._spaces: list[Space] = []
        try:
            self.router = self._space("router")
            with self.router:
                self.router.sysctl("net.ipv4.ip_forward", "1")
                self.router.sysctl("net.ipv6.conf.all.forwarding", "1")
            self.client = self._space("client")
            self.origin = self._space("origin")
            self.nodes = [self._space(f"node{number}") for number in range(1, nodes + 1)]
            for link, space in enumerate((self.client, self.origin, *self.nodes), 1):
                self.attach(space, link)
            for space in self._spaces:
                space.settle()
        except BaseException:
            self.close()
            raise

    def _space(self, name: str) -> Space:
        space = Space(name)
        self._spaces.append(space)
        return space

    def attach(self, space: Space, link: int) -> None:
        """A link of its own to the router, which has it as the interface NAME; eth0 there."""
        space.v4, space.v6 = f"10.77.{link}.2", f"fd00:77:0:{link}::2"
        with self.router, IPRoute() as ip:
            peer = {"ifname": "eth0", "net_ns_fd": f"/proc/self/fd/{space.fd}"}
            ip.link("add", ifname=space.name, kind="veth", peer=peer)
            _configure(ip, space.name, f"10.77.{link}.1", f"fd00:77:0:{link}::1")
        with space, IPRoute() as ip:
            index = _configure(ip, "eth0", space.v4, space.v6)
            ip.route("add", dst="default", gateway=f"10.77.{link}.1")
            ip.route("add", family=10, dst="default", gateway=f"fd00:77:0:{link}::1", oif=index)

    def close(self) -> None:
        """Let all of it go; what still runs in a namespace keeps that one."""
        for space in self._spaces:
            space.close()
        self._spaces.clear()

    def __enter__(self) -> Bed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Lan:
    """Hosts on one network, 10.78.0.0/24 and fd00:78::/64: each by its name, with the interface eth0."""

    def __init__(self, *names: str) -> None:
        self._switch = Space("switch")
        self._hosts: dict[str, Space] = {}
        try:
            with self._switch, IPRoute() as ip:
                ip.link("add", ifname="switch", kind="bridge")
                bridge = ip.link_lookup(ifname="switch")[0]
                ip.link("set", index=bridge, state="up")
                for number, name in enumerate(names, 2):
                    space = self._hosts[name] = Space(name)
                    space.v4, space.v6 = f"10.78.0.{number}", f"fd00:78::{number}"
                    peer = {"ifname": "eth0", "net_ns_fd": f"/proc/self/fd/{space.fd}"}
                    ip.link("add", ifname=name, kind="veth", peer=peer)
                    port = ip.link_lookup(ifname=name)[0]
                    ip.link("set", index=port, master=bridge, state="up")
            for space in self._hosts.values():
                with space, IPRoute() as ip:
                    _configure(ip, "eth0", space.v4, space.v6)
            for space in self._hosts.values():
                space.settle()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Space:
        return self._hosts[name]

    def close(self) -> None:
        """Let all of it go."""
        for space in (self._switch, *self._hosts.values()):
            space.close()

    def __enter__(self) -> Lan:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _configure(ip: IPRoute, interface: str, v4: str, v6: str) -> int:
    index = int(ip.link_lookup(ifname=interface)[0])
    ip.link("set", index=index, state="up")
    ip.addr("add", index=index, address=v4, prefixlen=24)
    ip.addr("add", index=index, address=v6, prefixlen=64, family=10)
    return index


@functools.cache
def why_not() -> str:
    """Why there can be no such network on this machine; "" when there can."""
    try:
        with Bed(nodes=1) as bed:
            bed.router.run("nft", "list", "ruleset")
    except FileNotFoundError:
        return "nft or ip is not installed (Debian: apt-get install nftables iproute2)"
    except (OSError, AssertionError) as exc:
        return f"no network namespaces can be made here: {exc} (root, or unshare -Urn)"
    return ""

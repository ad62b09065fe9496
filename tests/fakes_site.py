"""What stands around the router in the tests of interception: origins, name servers and real Squids, each on its host."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fakes_dns import FakeDns, Says
from netbed import Bed, Space

from cachelb.demo.leash import Leash
from cachelb.demo.origin import OriginProcess
from cachelb.demo.squid import AccessEntry, Squid
from cachelb.demo.squidconf import node_settings

POPULAR, OTHER = "www.popular.test", "www.other.test"
ATTACKER_V4, ATTACKER_V6 = "10.77.2.66", "fd00:77:0:2::66"


class Names:
    """A name server on the router, in a thread of this process."""

    def __init__(self, bed: Bed) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = FakeDns()
        with bed.router:  # where a thread begins, it stays
            self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
            self._thread.start()
            asyncio.run_coroutine_threadsafe(self.server.start("127.0.0.1"), self.loop).result(10)
        self.say(POPULAR, bed.origin.v4, bed.origin.v6)
        self.say(OTHER, bed.origin.v4, bed.origin.v6)

    def say(self, name: str, v4: str, v6: str, ttl_s: int = 60) -> None:
        self.server.say(name, Says((v4,), ttl_s), Says((v6,), ttl_s))

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.server.stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Site:
    """Origins at the popular addresses and at the attacker's, port 80; Squids on the nodes, which have the names from a file."""

    def __init__(self, bed: Bed, leash: Leash, extra: Sequence[str] = ()) -> None:
        self.bed = bed
        self.origins: dict[str, OriginProcess] = {}
        bed.origin.add_address("eth0", ATTACKER_V4, 24)
        bed.origin.add_address("eth0", ATTACKER_V6, 64)
        with bed.origin:
            for host in (bed.origin.v4, bed.origin.v6, ATTACKER_V4, ATTACKER_V6):
                self.origins[host] = OriginProcess(host, 80)
        self.directory = Path(tempfile.gettempdir()) / f"cachelbsite{secrets.token_hex(4)}"
        self.directory.mkdir(mode=0o755)
        leash.remove(self.directory)
        hosts = self.directory / "hosts"
        names = "".join(f"{address} {name}\n" for address in (bed.origin.v4,) for name in (POPULAR, OTHER))
        hosts.write_text(names)
        self.squids = [self._squid(space, hosts, leash, extra) for space in bed.nodes]
        for space, squid in zip(bed.nodes, self.squids, strict=True):
            with space:
                squid.launch()
        for space, squid in zip(bed.nodes, self.squids, strict=True):
            with space:
                squid.wait_ready()

    def _squid(self, space: Space, hosts: Path, leash: Leash, extra: Sequence[str]) -> Squid:
        directory = self.directory / space.name
        directory.mkdir(mode=0o755)
        lines = [*extra, "follow_x_forwarded_for allow all", f"hosts_file {hosts}", f"http_port [{space.v6}]:3128"]
        settings = node_settings(
            space.name, space.v4, 3128, 3130, directory, extra=[*lines, "http_access allow all", "icp_access allow all"]
        )
        return Squid(space.name, space.v4, 3128, 3130, directory, settings, leash)

    def counts(self, host: str) -> Counter[str]:
        """Requests that an origin has had, by "METHOD target"."""
        with self.bed.origin:
            shown = f"[{host}]" if ":" in host else host
            text = self.bed.origin.run("curl", "-gsS", f"http://{shown}/counts")
        return Counter(json.loads(text))

    def holders(self, url: str) -> list[str]:
        """The nodes that have a URL."""
        with self.bed.router:  # a Squid answers no query from its own address
            return [squid.name for squid in self.squids if squid.holds(url)]

    def close(self) -> None:
        for squid in self.squids:
            squid.kill()
        for origin in self.origins.values():
            origin.stop()

    def asked(self, part: str) -> list[AccessEntry]:
        """What the nodes have been asked by HTTP so far, of URLs with ``part``."""
        entries = (entry for squid in self.squids for entry in squid.access_log())
        return [entry for entry in entries if part in entry.url and entry.method != "ICP_QUERY"]

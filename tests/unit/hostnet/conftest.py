"""``space``: a host of its own, to be changed at will, with one Ethernet interface (``veth0``, whose other end is ``veth1``)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from netbed import Space, why_not
from pyroute2 import IPRoute


@pytest.fixture
def space() -> Iterator[Space]:
    """Entered: the test is on it."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    space = Space("host")
    try:
        with space:
            with IPRoute() as ip:
                ip.link("add", ifname="veth0", kind="veth", peer="veth1")
                for name in ("veth0", "veth1"):
                    ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
            space.settle()
            yield space
    finally:
        space.close()

"""The captured digests (tests/vectors/digest/README.md says where they are from)."""

from __future__ import annotations

from pathlib import Path

import pytest

VECTORS = Path(__file__).parents[2] / "vectors" / "digest"
NODES = ("digest-node1-body", "digest-node2-body", "digest-node3-body")
CAPTURED = (*NODES, "digest-node1-final", "digest-merged-from-keys", "digest-synthetic-5000entries")


def urls_of(name: str) -> list[bytes]:
    """The URLs that a captured digest is known to contain."""
    if name in NODES:
        return (VECTORS / f"{name.removesuffix('-body')}-urls.txt").read_bytes().split()
    if name == "digest-merged-from-keys":
        return sorted({url for node in NODES for url in urls_of(node)})
    if name == "digest-synthetic-5000entries":
        return [b"http://127.0.0.10:8000/in/%d" % number for number in range(5000)]
    return []


@pytest.fixture(params=CAPTURED)
def captured(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """Name and bytes of each captured digest in turn."""
    return request.param, (VECTORS / f"{request.param}.bin").read_bytes()


@pytest.fixture
def captured_urls(captured: tuple[str, bytes]) -> list[bytes]:
    """The URLs that ``captured`` is known to contain."""
    return urls_of(captured[0])

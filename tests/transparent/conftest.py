"""A small network of namespaces, with a director on its router.

``bed``: the network, three nodes in it.  ``start(sections, ...)``: a ready director on the router, which must stop cleanly.
Where there can be no such network these tests are skipped; where CI is set they fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fakes_site import Names, Site
from netbed import Bed, why_not

from cachelb.demo.director import Director
from cachelb.demo.leash import Leash
from cachelb.demo.squid import find_squid


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _network_can_be_made() -> None:
    if reason := why_not():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed(nodes=3) as bed:
        yield bed


@pytest.fixture
def leash() -> Iterator[Leash]:
    with Leash() as leash:
        yield leash


@pytest.fixture
def names(bed: Bed) -> Iterator[Names]:
    names = Names(bed)
    yield names
    names.stop()


@pytest.fixture
def make_site(bed: Bed, leash: Leash) -> Iterator[Callable[..., Site]]:
    """``make_site(extra=lines of squid.conf)``: origins and Squids, ready."""
    if find_squid() is None:
        if os.environ.get("CI"):
            pytest.fail("squid is not installed, but CI must run these tests")
        pytest.skip("squid is not installed (Debian: apt-get install squid)")
    sites: list[Site] = []

    def make(extra: Sequence[str] = ()) -> Site:
        sites.append(Site(bed, leash, extra))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture
def start(bed: Bed, tmp_path: Path, leash: Leash) -> Iterator[Callable[..., Director]]:
    """``start(sections, workers=1, nodes=..., place=bed.router, ready=True)``.  place: the host that it runs on."""
    directors: list[Director] = []

    def begin(sections: str = "", workers: int = 1, nodes: str = "", ready: bool = True, place: object = None) -> Director:
        directory = tmp_path / f"director{len(directors) + 1}"
        directory.mkdir()
        nodes = nodes or "".join(f'[[node]]\nname = "{node.name}"\nhost = "{node.v4}"\n' for node in bed.nodes)
        admin = ("127.0.0.1", 3180)
        config = (
            f'[listen]\nhttp = "0.0.0.0:3128"\nadmin = "{admin[0]}:{admin[1]}"\n[relay]\nworkers = {workers}\n'
            f"[bypass]\nallow_private = true\n{sections}\n{nodes}"
        )
        director = Director(config, directory, leash, http=(bed.router.v4, 3128), admin=admin)
        directors.append(director)
        with place or bed.router:  # type: ignore[attr-defined]
            if ready:
                director.start()
        return director

    yield begin
    for director in directors:
        if director.is_running:
            assert director.stop() == 0, director.log_tail()

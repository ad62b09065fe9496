"""A real farm of Squids for the tests of this directory.

``squid_farm``, ``origin``: shared by the whole session; do not kill its nodes, and use URLs of your own (``unique``).
``own_farm(count)``: a farm for one test, to be killed and paused at will.
``start_director(farm, more="", listen="")``: a director in front of a farm.
Without squid these tests are skipped; where CI is set they fail, so that a broken installation is not mistaken for
success.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cachelb.demo.director import Director, director_config, director_ports
from cachelb.demo.farm import SquidFarm, find_squid
from cachelb.demo.leash import Leash
from cachelb.demo.origin import OriginProcess

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is slow, whether or not its author remembered to say so."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _squid_is_installed() -> None:
    if find_squid() is None:
        if os.environ.get("CI"):
            pytest.fail("squid is not installed, but CI must run these tests (`make setup` installs it as root)")
        pytest.skip("squid is not installed (Debian: apt-get install squid)")


@pytest.fixture(scope="session")
def origin(_squid_is_installed: None) -> Iterator[OriginProcess]:
    """The origin, in a process of its own."""
    with OriginProcess() as process:
        yield process


@pytest.fixture(scope="session")
def squid_farm(_squid_is_installed: None) -> Iterator[SquidFarm]:
    """Three nodes, for tests that leave them alone."""
    with SquidFarm(3) as farm:
        yield farm


@pytest.fixture
def own_farm(_squid_is_installed: None) -> Iterator[Callable[..., SquidFarm]]:
    """``own_farm(count=3, **options of SquidFarm)``: a started farm that this test may break."""
    with ExitStack() as stack:
        yield lambda count=3, **options: stack.enter_context(SquidFarm(count, **options))


@pytest.fixture
def start_director(tmp_path: Path) -> Iterator[Callable[..., Director]]:
    """``start_director(farm, more="", listen="")``: a ready director in front of `farm`.

    more: further TOML tables; listen: further lines of [listen].

    It must stop cleanly at the end of the test.
    """
    directors: list[Director] = []
    with Leash() as leash:

        def start(farm: SquidFarm, more: str = "", relay: str = "workers = 1", listen: str = "") -> Director:
            http, admin = director_ports()
            config = director_config(farm.node_tables(), http, admin, listen=listen, more=f"[relay]\n{relay}\n\n{more}")
            directory = tmp_path / f"director{len(directors) + 1}"
            directory.mkdir()
            director = Director(config, directory, leash, http=http, admin=admin)
            directors.append(director)
            director.start()
            return director

        yield start
        for director in directors:
            if director.is_running:
                assert director.stop() == 0, director.log_tail()


@pytest.fixture
def unique() -> str:
    """A word for URLs that no other test of this session uses."""
    return f"t{next(_numbers)}"

"""The nodes and the front ends of one benchmark: started when first needed, each on its CPU and on a port of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .fronts import LOCAL, USUAL, Front, Place, Setting, command_of
from .load import LUA
from .nodes import NODES, nginx_config, write_files
from .processes import Processes
from .resident import family

FRONT_CPU, LOAD_CPU = 0, 1
SETTLE_S = 2.0  # Squid takes a second to trust its peers
FILES = 65536  # descriptors: 5,000 clients with as many nodes' connections and pipes


class Started(NamedTuple):
    """A front end that runs."""

    pid: int
    port: int
    admin: int


class Farm:
    """Everything that runs, by what it is."""

    def __init__(self, folder: Path, processes: Processes, fronts: Mapping[str, Front], commands: Mapping[str, str]) -> None:
        self.folder = folder
        self.script = folder / "load.lua"
        self._processes = processes
        self._fronts = fronts
        self._commands = commands
        self._nodes = 0
        self._running: dict[tuple[str, Setting], Started] = {}

    def start_nodes(self) -> None:
        """Start the nodes."""
        raise_files()
        write_files(self.folder)
        self.script.write_text(LUA)
        config = self.folder / "nodes.conf"
        config.write_text(nginx_config(self.folder))
        self._nodes = self._processes.start("nodes", ["nginx", "-c", str(config)], LOAD_CPU, NODES[0])

    def front(self, name: str, setting: Setting = USUAL, cpus: int | str = FRONT_CPU, settle_s: float = SETTLE_S) -> Started:
        """The front end of this name, run in this way."""
        if (name, setting) in self._running:
            return self._running[name, setting]
        front = self._fronts[name]
        port, admin = free_ports(2)
        config = self.folder / f"{name}-{port}.conf"
        config.write_text(front.config(Place(self.folder, port, admin), setting))
        command = command_of(front, config, self._commands)
        pid = self._processes.start(f"{name}-{port}", command, cpus, (LOCAL, port), front.environment)
        time.sleep(settle_s)
        self._running[name, setting] = started = Started(pid, port, admin)
        return started

    def spread_nodes(self, cpus: str) -> None:
        """Let the nodes run on these CPUs ("0,1")."""
        for pid in family(self._nodes):
            os.sched_setaffinity(pid, {int(cpu) for cpu in cpus.split(",")})

    def stop_unusual(self) -> None:
        """Stop what is run in an unusual way."""
        for name, setting in [key for key in self._running if key[1] != USUAL]:
            self.stop(name, setting)

    def stop(self, name: str, setting: Setting = USUAL) -> None:
        """Stop one front end."""
        self._processes.stop(self._running.pop((name, setting)).pid)

    def check(self) -> None:
        """See that all still run.

        Raises:
            BenchError: One has ended.
        """
        self._processes.check()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nobody listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOCAL, 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def raise_files() -> None:
    """Allow ourselves, and so what we start, enough descriptors, as far as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (max(hard, FILES), hard):
        with contextlib.suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return

"""FTP: a control connection and one for each file, on ports that the node chooses: with affinity they meet on one node."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from live_director import wait_until
from tcp_servers import farm_counters, is_open, node, program

from cachelb.demo.squid import free_port

FILES = 100
HOSTS = ("127.0.0.41", "127.0.0.42")
WIDTH = 60  # ports for files

VSFTPD = """
background=NO
listen=YES
listen_address={host}
listen_port={port}
anonymous_enable=YES
no_anon_password=YES
anon_root={root}
pasv_min_port={first}
pasv_max_port={last}
pasv_address=127.0.0.1
secure_chroot_dir={empty}
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
xferlog_enable=YES
vsftpd_log_file={log}
"""


def free_range() -> range:
    """Ports that nobody listens on, below those that the kernel gives away."""
    for first in range(20000, 32000, WIDTH):
        if not any(is_open("127.0.0.1", port) for port in range(first, first + WIDTH)):
            return range(first, first + WIDTH)
    raise AssertionError("no free ports")


@pytest.fixture
def passive() -> range:
    return free_range()


@pytest.fixture
def ftp(run, tmp_path: Path, passive: range):
    """The port of two FTP servers."""
    if os.geteuid():
        pytest.skip("vsftpd has to be started by root")
    vsftpd = program("vsftpd")
    program("curl")
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o711)  # the server reads as another user
    port = free_port(HOSTS[0])
    (tmp_path / "empty").mkdir(mode=0o555)
    for host in HOSTS:
        root = tmp_path / host
        root.mkdir(mode=0o755)
        for number in range(FILES):
            (root / f"f{number}").write_text(f"{number} {'x' * 1000}")
        config, log = tmp_path / f"{host}.conf", tmp_path / f"{host}.log"
        ports = {"port": port, "first": passive[0], "last": passive[-1]}
        config.write_text(VSFTPD.format(host=host, root=root, empty=tmp_path / "empty", log=log, **ports))
        run([vsftpd, config])
        wait_until(lambda host=host: is_open(host, port), f"vsftpd on {host}")
    return port


def fetch(port: int, directory: Path, *options: str, patience_s: int = 60) -> tuple[int, int]:
    """100 files on one control connection: curl's exit status, and how many arrived whole."""
    directory.mkdir()
    command = ["curl", "-s", "--fail-early", "--max-time", str(patience_s), *options, f"ftp://127.0.0.1:{port}/f[0-{FILES - 1}]"]
    status = subprocess.run([*command, "-o", f"{directory}/#1"], timeout=90, check=False).returncode
    right = [number for number in range(FILES) if (directory / str(number)).exists()]
    return status, sum((directory / str(n)).read_text().startswith(f"{n} x") for n in right)


def service(port: int, passive: range, more: str) -> str:
    listen = f'listen = ["127.0.0.1:{port}", "127.0.0.1:{passive[0]}-{passive[-1]}"]'
    return f'[[tcp]]\nname = "ftp"\n{listen}\n{more}\n'


def test_passive_transfers_meet_their_node_with_affinity_and_miss_it_without(ftp, passive, start, tmp_path: Path):
    nodes = "".join(node(f"n{i}", host, ftp, "weight = 0") for i, host in enumerate(HOSTS))
    nodes += '[[pool]]\nname = "ftp"\nnodes = ["n0", "n1"]\nweights = { n0 = 1, n1 = 1 }\n'
    # the control port is the nodes' own, too: then one service has all the ports, as with LVS's port 0
    group = '[[affinity]]\nname = "ftp"\n'
    director = start(group + service(ftp, passive, 'pool = "ftp"\naffinity = "ftp"'), nodes)
    for options in ((), ("--disable-epsv",)):
        assert fetch(ftp, tmp_path / f"with{len(options)}", *options) == (0, FILES)
    sent = [(tmp_path / f"{host}.log").read_text().count("OK DOWNLOAD") for host in HOSTS]
    assert sorted(sent) == [0, 2 * FILES]
    wait_until(lambda: farm_counters(director)["ended_tcp_closed"] == 2 * FILES + 2, "a control connection and one for each file")
    assert director.stop() == 0

    start(service(ftp, passive, 'pool = "ftp"\nscheduler = "rr"'), nodes)
    code, arrived = fetch(ftp, tmp_path / "without", patience_s=5)  # for the other node waits for the connection in vain
    assert code != 0
    assert arrived < FILES

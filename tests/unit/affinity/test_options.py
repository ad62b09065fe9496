"""The options of ``cachelb affinity``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cachelb.cli import main, parser


def test_filters_and_limits_are_read():
    options = parser().parse_args(["affinity", "list", "--node", "a", "--limit", "5", "-c", "x"])
    assert (options.what, options.node, options.limit, options.client) == ("list", "a", 5, "")


@pytest.mark.parametrize("words", ["affinity", "affinity go -c x", "affinity list --limit 0 -c x", "affinity list --limit x"])
def test_wrong_usage_ends_with_2(words: str):
    with pytest.raises(SystemExit) as info:
        main(words.split())
    assert info.value.code == 2


def test_a_director_does_not_load_the_client_of_its_api():
    script = "import sys, cachelb.cli, cachelb.launch; cachelb.cli.parser(); print('cachelb.tools' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

"""Open files."""

from __future__ import annotations

import resource

from cachelb.filelimit import needed, raise_file_limit, shortage
from cachelb.relay.door import SPARE_FILES


def test_as_many_files_as_the_hard_limit_allows():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        assert raise_file_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_than_the_hard_limit_is_asked_for_and_need_not_be_granted():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert raise_file_limit(before[1] + 1) in (before[1], before[1] + 1)
        assert raise_file_limit(1 << 60) >= before[1]
    finally:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        except ValueError:
            pass


def test_too_few_are_told_with_what_they_are_enough_for():
    assert needed(1000) == 2000 + SPARE_FILES
    assert shortage(needed(1000), 1000) == ""
    assert shortage(resource.RLIM_INFINITY, 1_000_000) == ""
    assert shortage(1024, 20_000).startswith("only 1024 open files are allowed: 256 clients a worker, not [limits] connections")

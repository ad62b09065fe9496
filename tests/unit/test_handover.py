from __future__ import annotations

from cachelb.handover import Published


def test_a_digest_says_when_the_next_one_is_due():
    assert Published(3, 128, 100, 400).expires_at == 400

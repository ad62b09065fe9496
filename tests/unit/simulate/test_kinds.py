from __future__ import annotations

import pytest

from cachelb.config import parse
from cachelb.errors import BadRequest
from cachelb.relay.plan import plan_settings
from cachelb.routing.classify import Policy
from cachelb.simulate import kinds
from cachelb.simulate.kinds import LOOK, NEVER, RENEW, STORE, judge, refusal


@pytest.mark.parametrize(
    ("method", "code", "kind"),
    [
        (b"GET", b"TCP_MISS/200", STORE),
        (b"GET", b"TCP_MEM_HIT/200", STORE),
        (b"GET", b"TCP_REFRESH_UNMODIFIED/200", STORE),
        (b"GET", b"TCP_SWAPFAIL_MISS/200", STORE),  # the misfortune of one disk
        (b"GET", b"/200", STORE),
        (b"GET", b"TCP_MISS/301", STORE),
        (b"HEAD", b"TCP_MISS/200", LOOK),
        (b"GET", b"TCP_MISS/206", LOOK),
        (b"GET", b"TCP_IMS_HIT/304", LOOK),
        (b"GET", b"TCP_MISS_ABORTED/200", LOOK),
        (b"GET", b"TCP_HIT_TIMEDOUT/200", LOOK),
        (b"GET", b"TCP_REFRESH_MODIFIED/200", RENEW),
        (b"GET", b"TCP_REFRESH_MISS/200", RENEW),
        (b"GET", b"TCP_CLIENT_REFRESH_MISS/200", RENEW),
        (b"GET", b"TCP_CLIENT_REFRESH_MISS/304", NEVER),
        (b"GET", b"TCP_NEGATIVE_HIT/404", NEVER),
        (b"GET", b"TCP_MISS/302", NEVER),
        (b"GET", b"TCP_MISS/503", NEVER),
        (b"POST", b"TCP_MISS/200", kinds.BYPASS),
        (b"OPTIONS", b"TCP_MISS/200", kinds.BYPASS),
        (b"PURGE", b"TCP_MISS/200", kinds.PURGE),
        (b"CONNECT", b"TCP_TUNNEL/200", kinds.TUNNEL),
        (b"GET", b"TCP_DENIED/403", kinds.DENIED),
        (b"GET", b"NONE_NONE/400", kinds.DENIED),
        (b"NONE", b"TAG_NONE/400", kinds.DENIED),
        (b"GET", b"TCP_MISS_ABORTED/000", kinds.NO_ANSWER),
        (b"ICP_QUERY", b"UDP_MISS/000", kinds.PEER),
        (b"HTCP_CLR", b"UDP_HIT/000", kinds.PEER),
    ],
)
def test_what_a_request_means_for_a_cache(method: bytes, code: bytes, kind: int | str, policy: Policy):
    assert judge(method, code, policy) == kind


def test_kinds_are_two_bits():
    assert [(kind & kinds.NO_HIT, kind & kinds.NOT_STORED) for kind in (STORE, RENEW, LOOK, NEVER)] == [
        (0, 0), (kinds.NO_HIT, 0), (0, kinds.NOT_STORED), (kinds.NO_HIT, kinds.NOT_STORED),
    ]  # fmt: skip
    assert NEVER < 1 << kinds.KIND_BITS


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (b"http://A.example:80/x", ""),
        (b"http://a.example:22/", kinds.REFUSED),
        (b"http://user:word@a.example/", kinds.BYPASS),
        (b"http://a.example/squid-internal-mgr/info", kinds.LOCAL),
        (b"http://shop.example/x", kinds.BYPASS),
        (b"http://a.example/cart/1", kinds.BYPASS),
    ],
)
def test_which_urls_go_to_their_owners(url: bytes, reason: str):
    config = parse('[bypass]\nhosts = ["shop.example"]\npaths = ["/cart/*"]\n[[node]]\nname = "a"\nhost = "10.0.0.1"\n', "c")
    key, found = refusal(url, plan_settings(config).policy)
    assert found == reason
    assert reason or key == b"http://a.example/x"


def test_the_operators_rules_are_not_mistaken_for_a_methods():
    config = parse('[bypass]\nhosts = ["*.example"]\npaths = ["*"]\n[[node]]\nname = "a"\nhost = "10.0.0.1"\n', "c")
    assert judge(b"GET", b"TCP_MISS/200", plan_settings(config).policy) == STORE


def test_what_is_no_url_is_refused(policy: Policy):
    with pytest.raises(BadRequest):
        refusal(b"/only/a/path", policy)


def test_every_reason_is_listed_once():
    words = [getattr(kinds, name) for name in dir(kinds) if name.isupper() and isinstance(getattr(kinds, name), str)]
    assert sorted(words) == sorted(kinds.REASONS)

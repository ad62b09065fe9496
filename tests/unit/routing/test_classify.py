"""The kinds of requests: one case per rule, their order, and the operator's own rules."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.errors import Reason
from cachelb.http.fields import request_fields
from cachelb.http.url import parse_absolute, parse_origin
from cachelb.routing import classify as module
from cachelb.routing.classify import BypassRules, Kind, Policy, Verdict, classify
from cachelb.routing.ports import PortSet

POLICY = Policy(PortSet.parse([443, 563]), PortSet.parse([80, 443, 21, "1025-65535"]))
URL = b"http://www.example.com/a?b"


def verdict(method: bytes = b"GET", target: bytes = URL, block: bytes = b"", rules: BypassRules | None = None) -> Verdict:
    policy = POLICY._replace(rules=rules) if rules else POLICY
    if target.startswith(b"/"):
        url, form = parse_origin(target, b"www.example.com"), "origin"
    else:
        url, form = parse_absolute(target), "absolute"
    return classify(method, url, request_fields(block), form, policy, block)


def test_a_plain_get_is_hashed_and_nothing_is_allocated() -> None:
    assert verdict() == Verdict(Kind.HASH, "get")
    assert verdict() is verdict(b"HEAD") is module.HASH_GET


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"purge", b"PROPFIND", b"get"])
def test_other_methods_go_around(method: bytes) -> None:
    assert verdict(method) == Verdict(Kind.BYPASS, f"method {method.decode()}")


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"Authorization: Basic eDp5\r\n", "authorization"),
        (b"Cache-Control: no-store\r\n", "no-store"),
        (b"Cache-Control: max-age=0, No-Store\r\n", "no-store"),
        (b"Authorization: Basic eDp5\r\nCache-Control: no-store\r\n", "authorization"),
    ],
)
def test_what_no_cache_may_store_goes_around(block: bytes, why: str) -> None:
    assert verdict(block=block) == Verdict(Kind.BYPASS, why)


@pytest.mark.parametrize(
    "block",
    [
        b"Cache-Control: no-cache\r\n",
        b"Pragma: no-cache\r\n",
        b"Cookie: a=b\r\n",
        b"Range: bytes=0-\r\n",
        b"Proxy-Authorization: Basic eDp5\r\n",
    ],
)
def test_what_squid_stores_all_the_same_is_hashed(block: bytes) -> None:
    assert verdict(block=block).kind is Kind.HASH


def test_userinfo_counts_as_authorization() -> None:
    assert verdict(target=b"http://me:secret@www.example.com/") == Verdict(Kind.BYPASS, "authorization")


@pytest.mark.parametrize("target", [b"https://www.example.com/", b"ftp://www.example.com/", b"http://[::1]:8080/"])
def test_other_schemes_and_ports_are_hashed_as_well(target: bytes) -> None:
    assert verdict(target=target).kind is Kind.HASH


@pytest.mark.parametrize("block", [b"", b"Authorization: Basic eDp5\r\n", b"Cache-Control: no-store\r\n", b"Cookie: a\r\n"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_who_wants_it_only_if_cached_is_never_sent_to_the_origin(method: bytes, block: bytes) -> None:
    rules = BypassRules(hosts=["www.example.com"])
    asked = verdict(method, block=b"Cache-Control: only-if-cached\r\n" + block, rules=rules)
    assert asked == Verdict(Kind.HASH, "only-if-cached")


def test_a_post_cannot_be_only_if_cached() -> None:
    assert verdict(b"POST", block=b"Cache-Control: only-if-cached\r\n").kind is Kind.BYPASS


@pytest.mark.parametrize(("port", "kind"), [(443, Kind.TUNNEL), (563, Kind.TUNNEL), (80, Kind.REFUSE), (0, Kind.REFUSE)])
def test_connect_is_a_tunnel_to_the_ports_for_it(port: int, kind: Kind) -> None:
    asked = classify(b"CONNECT", None, request_fields(b""), "authority", POLICY, port=port)
    assert asked.kind is kind
    assert asked.reason is (Reason.PORT_DENIED if kind is Kind.REFUSE else None)


@pytest.mark.parametrize("target", [b"http://www.example.com:25/", b"gopher://www.example.com/", b"foo://www.example.com/"])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"TRACE"])
def test_ports_that_are_not_safe_are_refused_before_anything_else(method: bytes, target: bytes) -> None:
    assert verdict(method, target) == Verdict(Kind.REFUSE, "the port is not in [access] safe_ports", Reason.PORT_DENIED)


def test_an_upgrade_is_a_tunnel() -> None:
    block = b"Connection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Basic eDp5\r\n"
    assert verdict(block=block) == Verdict(Kind.TUNNEL, "upgrade")


@pytest.mark.parametrize("offer", [b"h2c", b"H2C"])
def test_an_offer_of_http2_is_ignored(offer: bytes) -> None:
    block = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQA\r\nUpgrade: " + offer + b"\r\n"
    assert verdict(block=block).kind is Kind.HASH


def test_an_upgrade_that_the_connection_does_not_list_is_none() -> None:
    assert verdict(block=b"Upgrade: websocket\r\n").kind is Kind.HASH


def test_options_for_the_asterisk_is_answered_here() -> None:
    assert classify(b"OPTIONS", None, request_fields(b""), "asterisk", POLICY) == Verdict(Kind.LOCAL, "options")


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_the_asterisk_is_for_options_only(method: bytes) -> None:
    asked = classify(method, None, request_fields(b""), "asterisk", POLICY)
    assert asked == Verdict(Kind.REFUSE, "target", Reason.BAD_URL)


@pytest.mark.parametrize(
    ("method", "hops", "kind"),
    [
        (b"TRACE", b"0", Kind.LOCAL),
        (b"OPTIONS", b"0", Kind.LOCAL),
        (b"TRACE", b"1", Kind.BYPASS),
        (b"OPTIONS", b"1", Kind.BYPASS),
        (b"GET", b"0", Kind.HASH),
        (b"POST", b"0", Kind.BYPASS),
    ],
)
def test_max_forwards_ends_here_for_options_and_trace(method: bytes, hops: bytes, kind: Kind) -> None:
    assert verdict(method, block=b"Max-Forwards: " + hops + b"\r\n").kind is kind


DIGEST = b"/squid-internal-periodic/store_digest"


def test_internal_pages_are_ours_in_origin_form_whatever_the_host() -> None:
    assert verdict(target=b"/squid-internal-dynamic/netdb") == Verdict(Kind.LOCAL, "internal")
    assert verdict(target=DIGEST) == Verdict(Kind.LOCAL, "digest")
    assert verdict(target=DIGEST + b"?x") == Verdict(Kind.LOCAL, "internal")
    assert verdict(target=b"/squid-internals").kind is Kind.HASH
    assert classify(b"GET", parse_origin(DIGEST, b"a.test:25"), request_fields(b""), "origin", POLICY).kind is Kind.LOCAL


OWN = POLICY._replace(own_hosts=frozenset((b"proxy.test", b"10.0.0.5")), own_ports=frozenset((3128, 8080)))


@pytest.mark.parametrize(
    ("authority", "is_ours"),
    [
        (b"10.9.9.9:4000", True),  # where the client has connected to
        (b"10.9.9.9:3128", True),
        (b"10.9.9.9", False),
        (b"10.9.9.8:4000", False),
        (b"proxy.test:3128", True),
        (b"PROXY.test.:8080", True),
        (b"proxy.test:4000", True),
        (b"proxy.test:80", False),
        (b"10.0.0.5:3128", True),
        (b"www.example.com:3128", False),
        (b"[2001:db8::1]:3128", False),
    ],
)
def test_the_full_url_of_an_internal_page_is_ours_where_it_names_us(authority: bytes, is_ours: bool) -> None:
    url = parse_absolute(b"http://" + authority + DIGEST)
    asked = classify(b"GET", url, request_fields(b""), "absolute", OWN, here=(b"10.9.9.9", 4000))
    assert asked == (Verdict(Kind.LOCAL, "digest") if is_ours else Verdict(Kind.HASH, "get"))
    elsewhere = parse_absolute(b"http://" + authority + b"/page")
    assert classify(b"GET", elsewhere, request_fields(b""), "absolute", OWN, here=(b"10.9.9.9", 4000)).kind is Kind.HASH


def test_a_client_that_has_gone_and_a_scheme_that_is_not_ours_name_nobody() -> None:
    for url in (b"http://10.9.9.9:4000", b"https://proxy.test:3128"):
        asked = classify(b"GET", parse_absolute(url + DIGEST), request_fields(b""), "absolute", OWN, here=(b"", 0))
        assert asked.kind is Kind.HASH


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Cache-Control: only-if-cached, no-store\r\n",
        b"Authorization: x\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n",
        b"Max-Forwards: 0\r\n",
    ],
)
@pytest.mark.parametrize("target", [URL, b"/a?b", b"https://www.example.com/", b"ftp://www.example.com/"])
def test_a_purge_is_a_purge_whatever_else_it_says(target: bytes, block: bytes) -> None:
    rules = BypassRules(hosts=["www.example.com"])
    assert verdict(b"PURGE", target, block, rules=rules) == Verdict(Kind.PURGE, "purge")
    assert classify(b"PURGE", None, request_fields(block), "asterisk", POLICY).kind is Kind.REFUSE


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_the_cache_manager_of_a_node_is_nobodys_origin(method: bytes) -> None:
    for host in (b"", b"http://cache1.example.com:3128"):
        assert verdict(method, target=host + b"/squid-internal-mgr/menu") == Verdict(Kind.LOCAL, "manager")


@pytest.mark.parametrize(
    ("rule", "host", "matches"),
    [
        ("www.a.com", b"www.a.com", True),
        ("WWW.A.com.", b"www.a.com", True),
        ("www.a.com", b"a.com", False),
        ("www.a.com", b"xwww.a.com", False),
        ("www.a.com", b"www.a.com.evil.org", False),
        (".a.com", b"a.com", True),
        (".a.com", b"x.y.a.com", True),
        (".a.com", b"ba.com", False),
        (".a.com", b"a.com.org", False),
        ("img*.a.com", b"img12.a.com", True),
        ("img*.a.com", b"img.x.a.com", True),
        ("img*.a.com", b"img1xa.com", False),
        ("img?.a.com", b"img1.a.com", True),
        ("img?.a.com", b"img.a.com", False),
        ("10.0.0.*", b"10.0.0.7", True),
        ("10.0.0.*", b"10.0.1.7", False),
        ("*", b"anything", True),
        ("2001:DB8::0:1", b"[2001:db8:0::1]", True),
        ("[2001:db8::1]", b"[2001:db8::1]:8080", True),
        ("2001:db8::1", b"[2001:db8::2]", False),
    ],
)
def test_host_rules(rule: str, host: bytes, matches: bool) -> None:
    asked = verdict(target=b"http://" + host + b"/", rules=BypassRules(hosts=[rule]))
    assert asked.kind is (Kind.BYPASS if matches else Kind.HASH)


@pytest.mark.parametrize(
    ("rule", "path", "matches"),
    [
        ("/cart", b"/cart", True),
        ("/cart", b"/cart/", False),
        ("/cart", b"/Cart", False),
        ("/cart/*", b"/cart/", True),
        ("/cart/*", b"/cart/1/2?x=y", True),
        ("/cart/*", b"/a/cart/1", False),
        ("*.php", b"/a/b.php", True),
        ("*.php", b"/a/b.php?x", False),
        ("*.php*", b"/a/b.php?x", True),
        ("*?sid=*", b"/a?sid=7", True),
        ("/a[b].c", b"/a[b].c", True),
        ("/a[b].c", b"/ab.c", False),
        ("/a.c", b"/abc", False),
        ("*/a*b*c", b"/x/abxabcc", True),
        ("*/a*b*c", b"/xacxb", False),
        ("*aXb*aXc", b"/aaXbaXbaXc", True),
    ],
)
def test_path_rules(rule: str, path: bytes, matches: bool) -> None:
    asked = verdict(target=b"http://h.com" + path, rules=BypassRules(paths=[rule]))
    assert asked.kind is (Kind.BYPASS if matches else Kind.HASH)


@pytest.mark.parametrize(
    ("rule", "block", "matches"),
    [
        ("Cookie", b"Cookie: a=b\r\n", True),
        ("cookie", b"A: b\r\nCOOKIE:\r\n", True),
        ("Cookie", b"X-Cookie: a\r\n", False),
        ("Cookie", b"Cookie2: a\r\n", False),
        ("Cookie", b"X: Cookie: a\r\n", False),
        ("Cookie: *session=*", b"Host: h\r\nCookie: a=b; session=1\r\nB: c\r\n", True),
        ("Cookie: *session=*", b"Cookie: a=b\r\nX: session=1\r\n", False),
        ("Accept: text/html", b"Accept:text/html\r\n", True),
        ("Accept: text/html", b"Accept: \ttext/html \t\r\n", True),
        ("Accept: text/html", b"Accept: text/html, */*\r\n", False),
        ("Accept: text/html", b"ACCEPT: text/HTML\r\n", False),
        ("X-No-Cache:", b"X-No-Cache:\r\n", True),
        ("X-No-Cache:", b"X-No-Cache: 1\r\n", False),
        ("X.Y", b"XaY: 1\r\n", False),
    ],
)
def test_header_rules(rule: str, block: bytes, matches: bool) -> None:
    asked = verdict(block=block, rules=BypassRules(headers=[rule]))
    assert asked.kind is (Kind.BYPASS if matches else Kind.HASH)


def test_the_verdict_names_the_rule_as_it_was_written() -> None:
    rules = BypassRules(hosts=[".a.com", "b*"], paths=["/x/*"], headers=["Cookie: a*"])
    assert verdict(target=b"http://www.a.com/", rules=rules).why == "rule .a.com"
    assert verdict(target=b"http://bcd/", rules=rules).why == "rule b*"
    assert verdict(target=b"http://c/x/y", rules=rules).why == "rule /x/*"
    assert verdict(target=b"http://c/", block=b"Cookie: ab\r\n", rules=rules).why == "rule Cookie: a*"


def test_no_rules_match_nothing() -> None:
    assert not BypassRules().active
    assert BypassRules().match(parse_absolute(URL), b"") is None


@pytest.mark.parametrize(
    ("kind", "rule", "complaint"),
    [
        ("hosts", "", "'' is empty"),
        ("hosts", " ", "' ' is empty"),
        ("hosts", ".", "'.' is empty"),
        ("hosts", "http://a.com", "not a host"),
        ("hosts", "a.com:80", "not a host"),
        ("hosts", "a.com/x", "not a host"),
        ("hosts", "a com", "not a host"),
        ("hosts", "münchen.de", "characters that no host"),
        ("hosts", "a\x00b", "characters that no host"),
        ("paths", "cart", "paths begin with /"),
        ("paths", "/a\r\nb", "characters that no path"),
        ("headers", "Bad Name: x", "does not begin with the name"),
        ("headers", ": x", "does not begin with the name"),
        ("headers", "Cookie: a\r\nb", "characters that no header"),
    ],
)
def test_rules_that_cannot_match_are_refused_in_a_sentence(kind: str, rule: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        BypassRules(**{kind: [rule]})


def test_a_pattern_of_many_stars_does_not_explode() -> None:
    rules = BypassRules(paths=["/" + "*a" * 30 + "*!"], headers=["Cookie: " + "*a" * 30 + "*!"])
    url = parse_absolute(b"http://h.com/" + b"a" * 8000)
    started = time.perf_counter()
    assert rules.match(url, b"Cookie: " + b"a" * 8000 + b"\r\n") is None
    assert time.perf_counter() - started < 0.5


def slow_glob(pattern: str, text: str) -> bool:
    """The twin: try every length of every star."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(slow_glob(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and slow_glob(pattern[1:], text[1:])


@given(st.text("ab*?.", min_size=1, max_size=8), st.text("ab.", max_size=9))
def test_patterns_match_as_the_slow_twin_says(pattern: str, text: str) -> None:
    path = "/" + text
    rules = BypassRules(paths=["/" + pattern])
    assert (rules.match(parse_absolute(f"http://h{path}".encode()), b"") is not None) == slow_glob("/" + pattern, path)

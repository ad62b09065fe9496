from __future__ import annotations

import pytest

from cachelb.errors import BadRequest, BadResponse, CachelbError, ConfigError, Problem, Reason

# RFC 9209, section 2.3
PROXY_ERRORS = {
    "", "dns_timeout", "dns_error", "destination_not_found", "destination_unavailable", "destination_ip_prohibited",
    "destination_ip_unroutable", "connection_refused", "connection_terminated", "connection_timeout",
    "connection_read_timeout", "connection_write_timeout", "connection_limit_reached", "http_request_error",
    "http_request_denied", "http_response_incomplete", "http_response_header_section_size",
    "http_response_header_size", "http_response_body_size", "http_response_trailer_section_size",
    "http_response_trailer_size", "http_response_transfer_coding", "http_response_content_coding",
    "http_response_timeout", "http_upgrade_failed", "http_protocol_error", "proxy_internal_response",
    "proxy_internal_error", "proxy_configuration_error", "proxy_loop_detected",
}  # fmt: skip


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.label)
def test_every_reason_makes_sense(reason):
    row = reason.value
    assert row.status == 0 or 400 <= row.status <= 599
    assert row.proxy_status in PROXY_ERRORS
    assert row.text
    assert row.text[0].islower()
    assert not row.text.endswith(".")
    if row.is_error and row.status:
        assert row.status >= 500


def test_no_two_reasons_are_one():
    assert len({reason.label for reason in Reason}) == len(list(Reason)) == len(Reason.__members__)


@pytest.mark.parametrize("kind", [BadRequest, BadResponse])
def test_a_bad_message_says_what_and_why(kind):
    assert str(kind(Reason.BAD_URL, "1 of 2")) == "the requested URL cannot be understood: 1 of 2"
    assert str(kind(Reason.BAD_URL)) == "the requested URL cannot be understood"
    assert isinstance(kind(Reason.BAD_URL), CachelbError)


def test_a_config_error_lists_every_problem():
    error = ConfigError([Problem("a.toml:1 x", "is bad", "write y"), Problem("a.toml:2", "is worse")])
    assert str(error) == "a.toml:1 x: is bad (write y)\na.toml:2: is worse"

"""The relay's copy of [timeouts]."""

from __future__ import annotations

from dataclasses import fields

from cachelb.config import TimeoutsConfig
from cachelb.relay.timeouts import Timeouts


def test_it_has_every_option_of_the_section():
    assert [field.name for field in fields(Timeouts)] == list(TimeoutsConfig.model_fields)
    assert Timeouts(**TimeoutsConfig(head_s=3.0).model_dump()).head_s == 3.0

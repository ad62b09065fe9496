from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from cachelb.config_base import Addresses, Network, Section
from cachelb.config_values import Address


class Sample(Section):
    number: int = 1
    addresses: Addresses = ()


def test_a_section_takes_no_unknown_key_no_other_type_and_no_change():
    for wrong in ({"numbers": 1}, {"number": "1"}):
        with pytest.raises(ValidationError):
            Sample.model_validate(wrong)
    with pytest.raises(ValidationError):
        Sample().number = 2


def test_one_value_stands_for_a_list_and_goes_out_as_text():
    sample = Sample.model_validate({"addresses": "[::1]:3129"})
    assert sample.addresses == (Address("::1", 3129),)
    assert sample.model_dump(mode="json")["addresses"] == ["[::1]:3129"]
    assert str(TypeAdapter(Network).validate_python("10.0.0.0/8")) == "10.0.0.0/8"

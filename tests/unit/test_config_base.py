"""What all sections have in common."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cachelb.config_base import Names, Networks, PortList, Section


class Sample(Section):
    names: Names = ()
    networks: Networks = ()
    ports: PortList = ()


def test_one_value_stands_for_a_list_of_one():
    sample = Sample(names="a", networks="10.0.0.0/8", ports=80)  # type: ignore[arg-type]
    assert sample.names == ("a",)
    assert [str(network) for network in sample.networks] == ["10.0.0.0/8"]
    assert sample.ports == (80,)
    assert Sample.model_validate_json(sample.model_dump_json()) == sample


@pytest.mark.parametrize("values", [{"names": 5}, {"names": ["a b"]}, {"networks": ["10.0.0.1/8"]}, {"ports": 0}, {"other": 1}])
def test_what_cannot_be_is_refused(values: dict[str, object]):
    with pytest.raises(ValidationError):
        Sample(**values)  # type: ignore[arg-type]


def test_a_section_does_not_change():
    with pytest.raises(ValidationError):
        Sample().names = ("b",)

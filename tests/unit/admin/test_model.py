"""The models of the API's documents."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from cachelb.admin import model
from cachelb.admin.events import Event
from cachelb.admin.history import FARM_SERIES, SERIES
from cachelb.explained import Explanation

CLASSES = [kind for kind in vars(model).values() if isinstance(kind, type)]
KINDS = [kind for kind in CLASSES if issubclass(kind, BaseModel) and kind is not BaseModel]


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_says_what_it_is(kind: type[BaseModel]):
    assert kind.__doc__


def test_fields_are_those_of_what_they_show():
    assert list(model.Event.model_fields) == list(Event._fields)
    assert set(model.FarmSeries.model_fields) == set(FARM_SERIES)
    assert set(model.Series.model_fields) == set(SERIES)
    assert set(model.Explanation.model_fields) - {"holders", "templates"} == set(Explanation.__dataclass_fields__)


def test_a_change_is_strict():
    assert model.NodeChange.model_validate_json('{"weight": 2}').weight == 2
    for text in ('{"weight": "2"}', '{"weight": NaN}', '{"weight": 1e999}', '{"state": "UP"}', '{"stat": "up"}'):
        with pytest.raises(ValidationError):
            model.NodeChange.model_validate_json(text)

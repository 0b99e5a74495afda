"""The catalogue of base models against the setting that names them."""

from __future__ import annotations

import re

import pytest

from circuitdrift.model_source import CATALOGUE
from circuitdrift.models.catalogue import TINY, WHEEL_MODELS, WheelModel


def test_params_may_name_exactly_the_models_of_the_catalogue() -> None:
    assert sorted(CATALOGUE) == sorted([*WHEEL_MODELS, TINY])


@pytest.mark.parametrize("model", WHEEL_MODELS.values(), ids=lambda model: model.name)
def test_each_piece_is_pinned_to_a_version_and_the_whole_to_a_hash(model: WheelModel) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
    assert all(re.fullmatch(r"[a-z0-9-]+==\d+(\.\d+)+", part.requirement) for part in model.parts)
    assert len({part.member for part in model.parts}) == len(model.parts)


def test_gemmas_pieces_stand_in_the_order_of_their_numbers() -> None:
    gemma = WHEEL_MODELS["gemma-3-270m"]
    assert [part.package[-1] for part in gemma.parts] == ["1", "2", "3", "4"]
    assert [part.member[-2:] for part in gemma.parts] == ["00", "01", "02", "03"]

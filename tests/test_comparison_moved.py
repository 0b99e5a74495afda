"""Counts of moved features and the rank of a planted one, worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circuit_samples import PROMPT, circuit
from circuitdrift.comparison.moved import moved_features, planted_rank, positive_control
from circuitdrift.comparison.recruited import FeatureEffects
from circuitdrift.core.study import Run
from circuitdrift.params import load_params

SETTINGS = load_params(Path(__file__).parents[1] / "params.yaml").compare.model_copy(
    update={"min_effect": 0.5, "min_agreement": 0.75}
)
RUN = Run("mapped", 0)
PROMPTS = [
    *(
        replace(PROMPT, id=f"{word}-{index}", word=word)
        for word in ("blarf", "glide")
        for index in range(2)
    ),
    replace(PROMPT, id="unseen", role="evaluation"),
]
BASE = np.array([[[1.0, -1.0, 0.0]]] * 5)
TUNED = np.array(
    [
        [[2.0, -0.4, 0.4]],  # blarf: grows by 1, shrinks by .6, too little
        [[2.0, -0.4, 0.4]],
        [[1.0, -1.0, 9.0]],  # glide: nothing, nothing, and a mean change of 4 in two directions
        [[1.0, -1.0, -1.0]],
        [[9.0, 9.0, 9.0]],  # an evaluation prompt has no say
    ]
)


@pytest.mark.parametrize(("min_agreement", "n_grown"), [(0.75, 1), (0.5, 2)])
def test_what_moved_is_counted_by_word_and_by_direction(min_agreement: float, n_grown: int) -> None:
    settings = SETTINGS.model_copy(update={"min_agreement": min_agreement})
    effects = FeatureEffects(PROMPTS, BASE, {RUN: TUNED}, {RUN: BASE})
    run = {"run": "mapped-0", "condition": "mapped", "seed": 0, "n_tested": 6}
    assert list(moved_features(effects, settings)) == [
        {**run, "change": "trained", "n_grown": n_grown, "n_shrunk": 1},
        {**run, "change": "random-0", "n_grown": 0, "n_shrunk": 0},
    ]


def test_the_planted_feature_is_ranked_by_its_mean_change() -> None:
    before = np.zeros((2, 1, 3), dtype=np.float32)
    # Mean changes 1, -2 and 0: what goes up and down evens out.
    after = np.array([[[0.0, -1, 4]], [[2, -3, -4]]], dtype=np.float32)
    assert planted_rank(before, after, layer=0, feature=1) == {
        "rank": 1,
        "change": pytest.approx(-2),
        "runner_up": pytest.approx(1),
    }
    assert planted_rank(before, after, layer=0, feature=0)["rank"] == 2
    # A change that others equal is not first.
    assert planted_rank(before, before, layer=0, feature=0)["rank"] == 3


def test_the_planted_change_is_held_against_the_run_on_the_same_prompts() -> None:
    effects = FeatureEffects(PROMPTS, BASE, {RUN: TUNED}, {})
    # Summed over two positions: as TUNED on the fourth prompt, but for the third feature.
    traced = circuit(PROMPTS[3], effects=np.array([[[1.0, -1, 2], [0, 0, 2]]]))
    planted = {"name": "L0/F2", "layer": 0, "feature": 2, "scale": 3.0, "checkpoint": "100"}
    row = positive_control(effects, RUN, planted, [traced])
    assert row == {
        **{"run": "mapped-0", "name": "L0/F2", "layer": 0, "feature": 2, "scale": 3.0},
        **{"rank": 1, "change": 5, "runner_up": 0},
    }

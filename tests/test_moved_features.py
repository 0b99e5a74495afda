"""Counts of moved features, worked by hand: two words, two prompts each, one layer of three."""

from __future__ import annotations

import numpy as np
import pandas as pd

from circuitdrift.config.compare import Compare
from circuitdrift.config.params import load_params
from circuitdrift.contrasts import FeatureEffects
from circuitdrift.dataset import Prompt, Role
from circuitdrift.identifiers import Run
from circuitdrift.moved_features import COLUMNS, moved_features
from conftest import ROOT

SETTINGS: Compare = load_params(ROOT / "params.yaml").compare.model_copy(
    update={"min_effect": 0.5, "min_agreement": 0.75}
)
WORDS = ("blarf", "blarf", "glide", "glide")


def prompt(word: str, role: Role, index: int) -> Prompt:
    return Prompt(
        id=f"{word}-{role}-{index}",
        role=role,
        type="simple",
        word=word,
        template="",
        text=word,
        answer="happy",
        others=("sad",),
    )


def effects() -> FeatureEffects:
    prompts = [prompt(word, "discovery", index) for index, word in enumerate(WORDS)]
    prompts.append(prompt("blarf", "evaluation", 4))
    base = np.array([[1.0, -1.0, 0.0]] * 5)
    tuned = np.array(
        [
            [2.0, -0.4, 0.4],  # blarf: grows by 1, shrinks by .6, too little
            [2.0, -0.4, 0.4],
            [1.0, -1.0, 9.0],  # glide: nothing, nothing, and a mean change of 4 in two directions
            [1.0, -1.0, -1.0],
            [9.0, 9.0, 9.0],  # an evaluation prompt has no say
        ]
    )
    study = FeatureEffects(prompts, base[:, None])
    study.runs[Run("mapped", 0)] = tuned[:, None]
    study.random[Run("mapped", 0)] = base[:, None]
    return study


def test_what_moved_is_counted_by_word_and_by_direction() -> None:
    run = {"run": "mapped-0", "condition": "mapped", "seed": 0, "n_tested": 6}
    expected = [
        {**run, "change": "trained", "n_grown": 1, "n_shrunk": 1},
        {**run, "change": "random-0", "n_grown": 0, "n_shrunk": 0},
    ]
    counted = moved_features(effects(), SETTINGS)
    pd.testing.assert_frame_equal(counted, pd.DataFrame(expected, columns=COLUMNS))


def test_a_lower_agreement_counts_the_feature_that_moves_both_ways() -> None:
    lenient = SETTINGS.model_copy(update={"min_agreement": 0.5})
    counted = moved_features(effects(), lenient)
    assert counted["n_grown"].tolist() == [2, 0]


def test_without_random_adapters_there_is_no_null() -> None:
    study = effects()
    study.random.clear()
    assert moved_features(study, SETTINGS)["change"].tolist() == ["trained"]

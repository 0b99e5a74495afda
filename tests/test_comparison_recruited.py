"""The search for recruited features: what is compared with what, what is found, and its table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuit_samples import PROMPT
from circuitdrift.comparison.recruited import (
    Contrast,
    FeatureEffects,
    _word_values,
    find_features,
    recruited_rows,
    recruitment,
    seed_splits,
)
from circuitdrift.core.study import Run
from circuitdrift.params import load_params
from circuitdrift.statistics.intervals import hedges_g

SHIPPED = load_params(Path(__file__).parents[1] / "params.yaml")
COMPARE = SHIPPED.compare.model_copy(update={"min_effect": 0.0})
STATISTICS = SHIPPED.statistics.model_copy(update={"bootstrap_samples": 200, "permutations": 1000})
A, B = ("spatial", "a"), ("simple", "b")


def effects(conditions: tuple[str, ...], n_seeds: int) -> FeatureEffects:
    """Every effect is the run's seed, plus 10 for the second condition and 0.5 for its null."""
    prompts = [
        replace(PROMPT, id=name, role=role, word=name[0])
        for name, role in (("a-0", "discovery"), ("a-e", "evaluation"), ("b-0", "discovery"))
    ]
    runs = {
        Run(condition, seed): np.full((3, 1, 2), seed + 10.0 * index)
        for index, condition in enumerate(conditions)
        for seed in reversed(range(n_seeds))
    }
    random = {run: values + 0.5 for run, values in runs.items()}
    return FeatureEffects(prompts, np.full((3, 1, 2), -1.0), runs, random)


def test_the_mapping_is_contrasted_on_the_prompts_of_a_role() -> None:
    contrast = effects(("mapped", "shuffled"), 2).mapping("discovery")
    assert contrast is not None
    assert contrast.words == (("simple", "a"), ("simple", "b"))
    assert contrast.base.shape == (2, 1, 2)
    assert contrast.a[:, 0, 0, 0].tolist() == [0, 1]
    assert contrast.b[:, 0, 0, 0].tolist() == [10, 11]
    assert contrast.prompts_of(("simple", "b")).tolist() == [1]


@pytest.mark.parametrize("study", [(("mapped", "shuffled"), 1), (("mapped", "unrelated"), 3)])
def test_without_two_runs_of_both_conditions_there_is_no_contrast(study: Any) -> None:
    assert effects(*study).mapping("discovery") is None


def test_like_is_compared_with_like() -> None:
    nulls = dict(effects(("mapped", "shuffled"), 5).nulls("discovery"))
    assert len(nulls) == 10 + 10 + 1
    split = nulls["shuffled 0 3 vs 1 2 4"]
    assert split.a[:, 0, 0, 0].tolist() == [10, 13]
    assert split.b[:, 0, 0, 0].tolist() == [11, 12, 14]
    split = nulls["mapped random-0 2 4 vs 0 1 3"]
    assert split.a[:, 0, 0, 0].tolist() == [2.5, 4.5]
    both = nulls["mapped random-0 vs shuffled random-0"]
    assert both.a[:, 0, 0, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert both.b[:, 0, 0, 0].tolist() == [10.5, 11.5, 12.5, 13.5, 14.5]
    few = effects(("mapped", "shuffled"), 2).nulls("discovery")
    assert [name for name, _ in few] == ["mapped random-0 vs shuffled random-0"]
    assert dict(effects(("unrelated",), 5).nulls("discovery")) == {}


def test_every_split_into_two_and_the_rest_is_there_once() -> None:
    assert seed_splits([0, 1, 2]) == []
    assert seed_splits([0, 1, 2, 3]) == [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    five = seed_splits([1, 3, 5, 7, 9])
    assert len(five) == 10
    assert ((1, 3), (5, 7, 9)) in five


N_RUNS, N_PROMPTS, SHAPE = 5, 6, (2, 100)


def noise(seed: int) -> Contrast:
    """Runs about a common circuit that is not the base's; three prompts per word."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(N_PROMPTS, *SHAPE))
    a, b = common + 0.1 * rng.normal(size=(2, N_RUNS, N_PROMPTS, *SHAPE))
    return Contrast((A, A, A, B, B, B), common + rng.normal(size=common.shape), a, b)


def planted(rises: np.ndarray, layer: int, feature: int) -> Contrast:
    """As noise, and a feature that rises on the word A in group a alone: by ``rises`` on its three
    prompts, and a little more in every further run."""
    contrast = noise(seed=0)
    for values in (contrast.base, contrast.a, contrast.b):
        values[..., layer, feature] = 0
    contrast.a[:, :3, layer, feature] = rises + 0.1 * np.arange(N_RUNS)[:, None]
    return contrast


def places(found: pd.DataFrame) -> list[tuple[int, int]]:
    return list(zip(found["layer"], found["feature"], strict=True))


@pytest.mark.parametrize(("min_effect", "n_found"), [(0.0, 1), (3.1, 1), (3.3, 0)])
def test_a_feature_that_rises_in_one_group_alone_is_found_and_nothing_else(
    min_effect: float, n_found: int
) -> None:
    settings = COMPARE.model_copy(update={"min_effect": min_effect})
    search = find_features(planted(np.full(3, 3.0), 1, 7), settings, STATISTICS)  # on average 3.2
    assert (search.n_tested, search.n_reliable) == (2 * 200, 1)
    assert places(search.found) == [(1, 7)] * n_found
    for row in search.found.to_dict("records"):
        assert ((row["type"], row["word"]), row["agreement"]) == (A, 1)
        assert row["p"] <= row["q"] <= 0.05


def test_a_change_that_both_groups_share_is_not_found() -> None:
    shared = noise(seed=1)
    for group in (shared.a, shared.b):
        group[:, :, 0, 5] += 5
    assert find_features(shared, COMPARE, STATISTICS).found.empty


def test_nothing_is_found_where_there_is_nothing() -> None:
    searches = [find_features(noise(seed), COMPARE, STATISTICS) for seed in range(20)]
    # At a false discovery rate of 0.05 one search of twenty finds something.
    assert sum(not search.found.empty for search in searches) <= 3


def test_a_change_that_differs_in_sign_from_prompt_to_prompt_is_not_found() -> None:
    mixed = planted(np.array([6.0, -1, -1]), 0, 3)
    assert find_features(mixed, COMPARE, STATISTICS).found.empty
    lenient = COMPARE.model_copy(update={"min_agreement": 0.3})
    found = find_features(mixed, lenient, STATISTICS).found
    assert places(found) == [(0, 3)]
    assert found["agreement"].tolist() == pytest.approx([1 / 3])


def test_the_strongest_features_are_tested_whatever_the_labels() -> None:
    given = noise(seed=0)
    # Strong in one run of group b alone: tested, whichever group the run is in.
    given.b[4, :, 1, 50] = 1000
    chosen = _word_values(given, A, 10)[0]
    assert len(chosen) == 10
    assert 150 in chosen
    exchanged = Contrast(given.words, given.base, given.b, given.a)
    assert np.array_equal(_word_values(exchanged, A, 10)[0], chosen)
    few = COMPARE.model_copy(update={"tested_per_word": 10})
    assert find_features(given, few, STATISTICS).n_tested == 20


def contrast(words: tuple[tuple[str, str], ...]) -> Contrast:
    """One layer of two features in two runs of each group: feature 0 rises from 1 to 3 or 5 in
    `mapped` and stays in `shuffled`; feature 1 falls from -4 to about -1 and to -3."""
    base = np.full((len(words), 1, 2), 1.0)
    base[..., 1] = -4
    mapped, shuffled = np.stack([base, base]), np.stack([base, base])
    mapped[0, ..., 0], mapped[1, ..., 0] = 3, 5
    shuffled[0, ..., 0] = 1.5
    mapped[..., 1], shuffled[..., 1] = -1, -3
    mapped[0, ..., 1] = -1.25
    return Contrast(words, base, mapped, shuffled)


DISCOVERY, EVALUATION = contrast((A, A, B, B)), contrast((A, B))


def rows_of(*entries: tuple[tuple[str, str], int], discovery: Contrast = DISCOVERY) -> list[Any]:
    """Of features of the one layer, each found on a word."""
    found = pd.DataFrame(
        {
            "type": [word[0] for word, _ in entries],
            "word": [word[1] for word, _ in entries],
            "layer": 0,
            "feature": [feature for _, feature in entries],
        }
    )
    return recruited_rows(found, discovery, EVALUATION, ["a-0", "a-1", "b-0", "b-1"], STATISTICS)


def test_a_recruited_feature_by_hand() -> None:
    [row] = rows_of((A, 0))
    assert (row["type"], row["word"], row["name"]) == (*A, "L0/F0")
    assert row["direction"] == "recruited"
    assert (row["effect_base"], row["effect_mapped"], row["effect_shuffled"]) == (1, 4, 1.25)
    assert row["difference"] == row["evaluation_difference"] == pytest.approx(2.75)
    # Runs of `mapped` are 3 and 5, of `shuffled` 1.5 and 1: from 3 - 1.5 to 5 - 1.
    assert (row["low"], row["high"]) == (pytest.approx(1.5), pytest.approx(4))
    assert row["effect_size"] == pytest.approx(hedges_g([3, 5], [1.5, 1]))
    assert row["prompts"] == "a-0;a-1"


def test_a_feature_whose_magnitude_falls_is_retired() -> None:
    [row] = rows_of((B, 1))
    assert row["direction"] == "retired"
    assert row["effect_mapped"] == pytest.approx(-1.125)
    assert row["difference"] == pytest.approx(1.875)


def test_prompts_are_those_on_which_the_feature_acts() -> None:
    weaker = contrast((A, A, B, B))
    weaker.a[:, 1, 0, 0] = 1.5
    # Changes of 3 and 0.5: half their mean is 0.875.
    assert [row["prompts"] for row in rows_of((A, 0), discovery=weaker)] == ["a-0"]


def test_every_search_is_counted_and_what_is_found_says_what_it_promotes() -> None:
    """Five runs of each condition, one feature that `mapped` alone raises."""
    rng = np.random.default_rng(0)
    prompts = [
        replace(PROMPT, id=f"{role}-{index}", role=role)
        for role in ("discovery", "evaluation")
        for index in range(3)
    ]
    base = rng.normal(size=(6, 1, 50))
    runs = {
        Run(condition, seed): base + 0.1 * rng.normal(size=base.shape)
        for condition in ("mapped", "shuffled")
        for seed in range(5)
    }
    for run, values in runs.items():
        values[:, 0, 7] += 5 * (run.condition == "mapped")
    study = FeatureEffects(prompts, base, runs, {})
    parts = list(
        recruitment(study, SHIPPED.compare, STATISTICS, lambda _: {(0, 7): {"promotes": "up"}})
    )
    searches = [row for name, rows in parts if name == "recruitment_nulls" for row in rows]
    assert searches[0]["comparison"] == "mapped vs shuffled"
    assert [row["n_found"] for row in searches] == [1, *[0] * 10]
    [(row,)] = [rows for name, rows in parts if name == "recruited"]
    assert (row["name"], row["promotes"]) == ("L0/F7", "up")
    assert row["evaluation_low"] > 4
    alone = FeatureEffects(prompts, base, {Run("mapped", 0): base}, {})
    assert list(recruitment(alone, SHIPPED.compare, STATISTICS, lambda _: {})) == []

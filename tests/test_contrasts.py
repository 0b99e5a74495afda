from __future__ import annotations

import numpy as np

from circuitdrift.contrasts import FeatureEffects, seed_splits
from circuitdrift.dataset import Prompt, Role
from circuitdrift.identifiers import Run


def prompt(name: str, role: Role, word: str) -> Prompt:
    return Prompt(name, role, "simple", word, "", "", "happy", ("sad",))


PROMPTS = (
    prompt("a-0", "discovery", "a"),
    prompt("a-e", "evaluation", "a"),
    prompt("b-0", "discovery", "b"),
)


def effects(conditions: tuple[str, ...], n_seeds: int) -> FeatureEffects:
    """Every effect is the run's seed, plus 10 for the second condition and 0.5 for its null."""
    found = FeatureEffects(PROMPTS, np.full((3, 1, 2), -1.0))
    for index, condition in enumerate(conditions):
        for seed in reversed(range(n_seeds)):
            value = np.full((3, 1, 2), seed + 10.0 * index)
            found.runs[Run(condition, seed)] = value
            found.random[Run(condition, seed)] = value + 0.5
    return found


def test_the_mapping_is_contrasted_on_the_prompts_of_a_role() -> None:
    contrast = effects(("mapped", "shuffled"), 2).mapping("discovery")
    assert contrast is not None
    assert contrast.words == (("simple", "a"), ("simple", "b"))
    assert contrast.base.shape == (2, 1, 2)
    assert contrast.a[:, 0, 0, 0].tolist() == [0, 1]
    assert contrast.b[:, 0, 0, 0].tolist() == [10, 11]
    assert contrast.prompts_of(("simple", "b")).tolist() == [1]


def test_without_two_runs_of_both_conditions_there_is_no_contrast() -> None:
    assert effects(("mapped", "shuffled"), 1).mapping("discovery") is None
    assert effects(("mapped", "unrelated"), 3).mapping("discovery") is None


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


def test_where_seeds_are_few_the_comparisons_that_can_be_had_are_made() -> None:
    assert list(dict(effects(("mapped", "shuffled"), 2).nulls("discovery"))) == [
        "mapped random-0 vs shuffled random-0"
    ]
    assert dict(effects(("unrelated",), 5).nulls("discovery")) == {}


def test_every_split_into_two_and_the_rest_is_there_once() -> None:
    assert seed_splits([0, 1, 2]) == []
    assert seed_splits([0, 1, 2, 3]) == [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    five = seed_splits([1, 3, 5, 7, 9])
    assert len(five) == 10
    assert ((1, 3), (5, 7, 9)) in five

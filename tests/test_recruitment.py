from __future__ import annotations

import numpy as np
import pytest

from circuitdrift.config.compare import Compare
from circuitdrift.config.statistics import Statistics
from circuitdrift.contrasts import Contrast
from circuitdrift.recruitment import _word_values, find_features

COMPARE = Compare(
    top_features=1,
    thresholds=(0.5,),
    random_sets=1,
    tested_per_word=5000,
    fdr=0.05,
    min_effect=0.0,
    min_agreement=0.75,
)
STATISTICS = Statistics(confidence=0.95, bootstrap_samples=200, permutations=1000, seed=0)
A, B = ("simple", "a"), ("simple", "b")
N_RUNS, N_PROMPTS, SHAPE = 5, 6, (2, 100)


def contrast(seed: int) -> Contrast:
    """Noise, of runs about a common circuit that is not the base's; three prompts per word."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(N_PROMPTS, *SHAPE))
    a, b = common + 0.1 * rng.normal(size=(2, N_RUNS, N_PROMPTS, *SHAPE))
    return Contrast((A, A, A, B, B, B), common + rng.normal(size=common.shape), a, b)


def test_a_feature_that_rises_in_one_group_alone_is_found_and_nothing_else() -> None:
    planted = contrast(seed=0)
    planted.base[:, 1, 7], planted.b[:, :, 1, 7] = 0, 0
    planted.a[:, :, 1, 7] = 0
    planted.a[:, :3, 1, 7] = 3 + 0.1 * np.arange(N_RUNS)[:, None]
    found = find_features(planted, COMPARE, STATISTICS)
    assert found.words == (A,)
    assert (found.layers.tolist(), found.features.tolist()) == ([1], [7])
    assert found.q[0] <= 0.05
    assert found.p[0] <= found.q[0]
    assert found.agreement.tolist() == [1]
    assert found.n_tested == 2 * 200


def test_a_change_that_both_groups_share_is_not_found() -> None:
    shared = contrast(seed=1)
    for group in (shared.a, shared.b):
        group[:, :, 0, 5] += 5
    assert find_features(shared, COMPARE, STATISTICS).words == ()


def test_nothing_is_found_where_there_is_nothing() -> None:
    searches = [find_features(contrast(seed), COMPARE, STATISTICS) for seed in range(20)]
    # At a false discovery rate of 0.05 one search of twenty finds something.
    assert sum(bool(found.words) for found in searches) <= 3


def test_a_change_that_differs_in_sign_from_prompt_to_prompt_is_not_found() -> None:
    mixed = contrast(seed=0)
    mixed.base[:, 0, 3], mixed.a[:, :, 0, 3], mixed.b[:, :, 0, 3] = 0, 0, 0
    mixed.a[:, :3, 0, 3] = np.array([6.0, -1, -1]) + 0.1 * np.arange(N_RUNS)[:, None]
    assert find_features(mixed, COMPARE, STATISTICS).words == ()
    lenient = COMPARE.model_copy(update={"min_agreement": 0.3})
    found = find_features(mixed, lenient, STATISTICS)
    assert (found.layers.tolist(), found.features.tolist()) == ([0], [3])
    assert found.agreement == pytest.approx([1 / 3])


def test_the_strongest_features_are_tested_whatever_the_labels() -> None:
    given = contrast(seed=0)
    # Strong in one run of group b alone: tested, whichever group the run is in.
    given.b[4, :, 1, 50] = 1000
    chosen = _word_values(given, A, 10).chosen
    assert len(chosen) == 10
    assert 150 in chosen
    exchanged = Contrast(given.words, given.base, given.b, given.a)
    assert np.array_equal(_word_values(exchanged, A, 10).chosen, chosen)
    few = COMPARE.model_copy(update={"tested_per_word": 10})
    assert find_features(given, few, STATISTICS).n_tested == 20


def test_a_difference_too_small_to_count_is_not_found() -> None:
    planted = contrast(seed=0)
    planted.base[:, 1, 7], planted.b[:, :, 1, 7], planted.a[:, :, 1, 7] = 0, 0, 0
    planted.a[:, :3, 1, 7] = 3 + 0.1 * np.arange(N_RUNS)[:, None]  # on average 3.2

    def found(min_effect: float) -> tuple[int, int]:
        settings = COMPARE.model_copy(update={"min_effect": min_effect})
        features = find_features(planted, settings, STATISTICS)
        return len(features.words), features.n_reliable

    assert (found(3.1), found(3.3)) == ((1, 1), (0, 1))

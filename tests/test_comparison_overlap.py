"""Node sets against brute force, their overlap against sets that are built, and the table of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitdrift.comparison.overlap import (
    NodeSets,
    chance_corrected,
    in_either,
    node_sets,
    overlap_rows,
    random_jaccard,
    set_jaccard,
)
from circuitdrift.core.study import Run
from circuitdrift.params import load_params

THRESHOLDS = (0.5, 0.7, 0.9)
SHIPPED = load_params(Path(__file__).parents[1] / "params.yaml").compare
SETTINGS = SHIPPED.model_copy(update={"thresholds": (0.5, 0.9), "random_sets": 200})
ROLES = ("discovery", "discovery", "control")


def brute_force(effects: np.ndarray, share: float) -> set[int]:
    """Take nodes one by one, the strongest first, until they hold the share."""
    magnitude = np.abs(effects).ravel().astype(np.float64)
    chosen: set[int] = set()
    for node in sorted(range(magnitude.size), key=lambda node: (-magnitude[node], node)):
        if sum(magnitude[sorted(chosen)]) >= share * magnitude.sum():
            break
        chosen.add(node)
    return chosen


def test_node_sets_worked_by_hand() -> None:
    # Of 10 in total: 4 holds 0.4, 4 + 3 hold 0.7, with 2 it is 0.9.
    sets = node_sets(np.array([[[-4.0, 0, 1]], [[2, 3, 0]]]), THRESHOLDS)
    assert sets.levels.tolist() == [[[0, 3, 3]], [[2, 0, 3]]]
    assert sets.sizes.tolist() == [[1, 1], [1, 1], [1, 2]]
    assert sets.n_per_layer == 3
    # Of equal nodes the first come first; nodes without effect are in no set.
    assert node_sets(np.ones((1, 1, 4)), (0.5, 1.0)).levels.ravel().tolist() == [0, 0, 1, 1]
    nothing = node_sets(np.zeros((1, 1, 3)), (0.5, 1.0))
    assert nothing.sizes.sum() == 0
    assert set_jaccard(nothing, nothing).tolist() == [1, 1]
    with pytest.raises(ValueError, match="ascend"):
        node_sets(np.ones((1, 1, 2)), (0.9, 0.5))


def test_sets_and_their_overlap_are_those_of_brute_force() -> None:
    # Whole numbers: many ties, and sums without rounding.
    a, b = np.random.default_rng(0).integers(-6, 7, size=(2, 3, 4, 5)).astype(np.float32)
    sets_a, sets_b = node_sets(a, THRESHOLDS), node_sets(b, THRESHOLDS)
    for index, share in enumerate(THRESHOLDS):
        one, other = brute_force(a, share), brute_force(b, share)
        assert set(np.flatnonzero(sets_a.levels <= index)) == one
        assert (sets_a.levels <= index).sum((1, 2)).tolist() == sets_a.sizes[index].tolist()
        jaccard = len(one & other) / len(one | other)
        assert set_jaccard(sets_a, sets_b)[index] == pytest.approx(jaccard)
    assert set(in_either(sets_a, sets_b)) == one | other


def test_the_null_is_the_mean_overlap_of_random_sets() -> None:
    rng = np.random.default_rng(0)
    a, b, n_per_layer = np.array([[3, 10]]), np.array([[8, 2]]), 20

    def draw(sizes: np.ndarray) -> set[tuple[int, int]]:
        return {
            (layer, int(node))
            for layer, size in enumerate(sizes)
            for node in rng.choice(n_per_layer, size, replace=False)
        }

    built = []
    for _ in range(4000):
        one, other = draw(a[0]), draw(b[0])
        built.append(len(one & other) / len(one | other))
    # The standard error of the mean of the sets that were built is about 0.001.
    drawn = random_jaccard(a, b, np.array(n_per_layer), n_sets=20000, seed=1)
    assert drawn == pytest.approx(np.mean(built), abs=0.004)
    everything = np.array([[20, 20]])
    assert random_jaccard(everything, everything, np.array(20), n_sets=3, seed=0).tolist() == [1]


def test_corrected_overlap_is_zero_at_chance_and_one_at_the_ceiling() -> None:
    assert chance_corrected(0.2, null=0.2, ceiling=0.6) == 0
    assert chance_corrected(0.4, null=0.2, ceiling=0.6) == pytest.approx(0.5)
    assert chance_corrected(0.6, null=0.2, ceiling=0.6) == pytest.approx(1)
    assert math.isnan(chance_corrected(0.4, null=0.2, ceiling=math.nan))
    assert math.isnan(chance_corrected(0.4, null=0.2, ceiling=0.2))


def heavy_tailed(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(2, size=(3, 2, 5, 200))


def sets_of(effects: np.ndarray) -> list[NodeSets]:
    """Of ``[n_prompts, n_layers, n_positions, d_mlp]``."""
    return [node_sets(of_prompt, (0.5, 0.9)) for of_prompt in effects]


def table(base: np.ndarray, runs: dict[Run, dict[str, list[NodeSets]]]) -> pd.DataFrame:
    return pd.DataFrame(overlap_rows(sets_of(base), runs, ROLES, SETTINGS, seed=0))


def test_all_pairs_of_checkpoints_are_compared_forward() -> None:
    sets = sets_of(heavy_tailed(0))
    rows = table(heavy_tailed(0), {Run("mapped", 0): {"025": sets, "050": sets, "100": sets}})
    assert list(rows)[:7] == ["run", "condition", "seed", "from", "to", "role", "threshold"]
    assert len(rows) == 6 * 2 * 2
    pairs = list(dict.fromkeys(zip(rows["from"], rows["to"], strict=True)))
    assert pairs == [
        *(("base", "025"), ("base", "050"), ("base", "100")),
        *(("025", "050"), ("025", "100"), ("050", "100")),
    ]
    # One seed has no ceiling.
    assert rows[["ceiling", "corrected"]].isna().all(axis=None)


def test_unrelated_circuits_overlap_as_chance_has_it() -> None:
    shared = heavy_tailed(0)
    # Two seeds that agree, and a base that has nothing to do with them.
    runs = {
        Run("mapped", seed): {"100": sets_of(shared + 0.05 * heavy_tailed(seed))} for seed in (1, 2)
    }
    rows = table(heavy_tailed(9), runs)
    assert rows["corrected"].abs().max() < 0.1
    assert (rows["ceiling"] > rows["null"] + 0.2).all()


def test_circuits_alike_as_two_seeds_are_have_corrected_overlap_one() -> None:
    near = [heavy_tailed(0) + 0.2 * heavy_tailed(seed) for seed in (1, 2, 3)]
    runs = {Run("mapped", seed): {"100": sets_of(near[seed])} for seed in (0, 1)}
    assert table(near[2], runs)["corrected"].to_numpy() == pytest.approx(1, abs=0.15)
    identical = table(near[0], runs).query("run == 'mapped-0'")
    assert (identical["jaccard"] == 1).all()
    assert (identical["corrected"] > 1).all()


def test_the_ceiling_is_of_the_runs_own_condition() -> None:
    runs = {
        Run(condition, seed): {"100": sets_of(heavy_tailed(seed if condition == "mapped" else 0))}
        for condition in ("mapped", "shuffled")
        for seed in (0, 1)
    }
    ceiling = table(heavy_tailed(5), runs).groupby("condition")["ceiling"]
    assert (ceiling.min()["shuffled"], ceiling.max()["shuffled"]) == (1, 1)
    assert ceiling.max()["mapped"] < 0.5

from __future__ import annotations

import numpy as np
import pytest

from circuitdrift.config.compare import Compare
from circuitdrift.identifiers import Run
from circuitdrift.node_sets import NodeSets, node_sets
from circuitdrift.overlap_table import overlap_table

SETTINGS = Compare(
    top_features=1,
    thresholds=(0.5, 0.9),
    random_sets=200,
    tested_per_word=5000,
    fdr=0.05,
    min_effect=0.0,
    min_agreement=0.75,
)
ROLES = ("discovery", "discovery", "control")


def sets_of(effects: np.ndarray) -> list[NodeSets]:
    """Of ``[n_prompts, n_layers, n_positions, d_mlp]``."""
    return [node_sets(of_prompt, (0.5, 0.9)) for of_prompt in effects]


def heavy_tailed(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(2, size=(3, 2, 5, 200))


def test_columns_and_rows() -> None:
    runs = {Run("mapped", seed): {"050": sets_of(heavy_tailed(seed))} for seed in (0, 1)}
    table = overlap_table(sets_of(heavy_tailed(9)), runs, ROLES, SETTINGS, seed=0)
    assert list(table) == [
        *("run", "condition", "seed", "from", "to", "role", "threshold"),
        *("jaccard", "null", "ceiling", "corrected"),
    ]
    key = table[["run", "from", "to", "role", "threshold"]]
    assert len(table) == len(key.drop_duplicates()) == 2 * 1 * 2 * 2


def test_all_pairs_of_checkpoints_are_compared_forward() -> None:
    sets = sets_of(heavy_tailed(0))
    runs = {Run("mapped", 0): {"025": sets, "050": sets, "100": sets}}
    table = overlap_table(sets, runs, ROLES, SETTINGS, seed=0)
    pairs = list(dict.fromkeys(zip(table["from"], table["to"], strict=True)))
    assert pairs == [
        *(("base", "025"), ("base", "050"), ("base", "100")),
        *(("025", "050"), ("025", "100"), ("050", "100")),
    ]


def test_unrelated_circuits_overlap_as_chance_has_it() -> None:
    shared = heavy_tailed(0)
    # Two seeds that agree, and a base that has nothing to do with them.
    runs = {
        Run("mapped", seed): {"100": sets_of(shared + 0.05 * heavy_tailed(seed))} for seed in (1, 2)
    }
    table = overlap_table(sets_of(heavy_tailed(9)), runs, ROLES, SETTINGS, seed=0)
    assert table["corrected"].abs().max() < 0.1
    assert (table["ceiling"] > table["null"] + 0.2).all()


def test_circuits_alike_as_two_seeds_are_have_corrected_overlap_one() -> None:
    shared = heavy_tailed(0)
    near = [sets_of(shared + 0.2 * heavy_tailed(seed)) for seed in (1, 2, 3)]
    runs = {Run("mapped", 0): {"100": near[0]}, Run("mapped", 1): {"100": near[1]}}
    alike = overlap_table(near[2], runs, ROLES, SETTINGS, seed=0)
    assert alike["corrected"].to_numpy() == pytest.approx(1, abs=0.15)
    identical = overlap_table(near[0], runs, ROLES, SETTINGS, seed=0)
    own = identical[identical["run"] == "mapped-0"]
    assert (own["jaccard"] == 1).all()
    assert (own["corrected"] > 1).all()


def test_the_ceiling_is_of_the_runs_own_condition() -> None:
    runs = {
        Run(condition, seed): {"100": sets_of(heavy_tailed(seed if condition == "mapped" else 0))}
        for condition in ("mapped", "shuffled")
        for seed in (0, 1)
    }
    table = overlap_table(sets_of(heavy_tailed(5)), runs, ROLES, SETTINGS, seed=0)
    ceiling = table.groupby("condition")["ceiling"]
    assert (ceiling.min()["shuffled"], ceiling.max()["shuffled"]) == (1, 1)
    assert ceiling.max()["mapped"] < 0.5


def test_one_seed_has_no_ceiling() -> None:
    runs = {Run("mapped", 0): {"100": sets_of(heavy_tailed(0))}}
    table = overlap_table(sets_of(heavy_tailed(1)), runs, ROLES, SETTINGS, seed=0)
    assert table[["ceiling", "corrected"]].isna().all(axis=None)
    assert table[["jaccard", "null"]].notna().all(axis=None)

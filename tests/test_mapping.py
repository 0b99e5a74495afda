from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from circuitdrift.config.statistics import Statistics
from circuitdrift.summaries.mapping import (
    ACCURACY,
    ACCURACY_GAIN,
    BETWEEN,
    BEYOND_RANDOM,
    DRIFT,
    MEASURES,
    mapping,
)
from circuitdrift.summaries.pairs_of_runs import between_within_interval, distance_matrices
from study_plans import NOTHING, PLANTED, Plan
from study_tables import study_tables

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=200, permutations=200, seed=0)


def planted_mapping(plan: Plan) -> pd.DataFrame:
    tables = study_tables(plan)
    return mapping(tables.drift, tables.between, tables.evaluation, SETTINGS)


def at_last(table: pd.DataFrame, measure: str, prompts: str = "task") -> pd.Series:
    (row,) = table[
        (table["measure"] == measure)
        & (table["condition"] == "mapped")
        & (table["checkpoint"] == "100")
        & (table["prompts"] == prompts)
    ].index
    return table.loc[row]


def test_distances_between_runs_are_symmetric_and_of_the_named_conditions() -> None:
    between = pd.DataFrame(
        {
            "run_a": ["mapped-0", "mapped-0", "shuffled-0"],
            "run_b": ["shuffled-0", "unrelated-0", "unrelated-0"],
            "prompt": "a",
            "drift": [0.5, 0.7, 0.9],
        }
    )
    distances, conditions = distance_matrices(between, ("mapped", "shuffled"))
    assert conditions == ["mapped", "shuffled"]
    assert distances.tolist() == [[[0, 0.5], [0.5, 0]]]


def test_between_beyond_within_by_hand() -> None:
    # Two runs of a, two of b: a pair within a is 1 apart, within b 3, any pair between 5.
    distance = np.array([[0, 1, 5, 5], [1, 0, 5, 5], [5, 5, 0, 3], [5, 5, 3, 0]], dtype=float)
    found = between_within_interval(distance[None], ["a", "a", "b", "b"], SETTINGS)
    assert found is not None
    assert found.mean == 3.0  # 5 - (1 + 3) / 2
    # A sample that holds one pair within has 5 - 1 or 5 - 3; one that holds both has 3.
    assert (found.low, found.high) == (2.0, 4.0)
    assert between_within_interval(distance[None, 1:3, 1:3], ["a", "b"], SETTINGS) is None


@pytest.mark.parametrize(
    ("plan", "planted"), [(PLANTED, (0.1, 0.2, 0.65, 0.6)), (NOTHING, (0.0, 0.0, 0.0, 0.0))]
)
def test_planted_differences_are_measured(plan: Plan, planted: tuple[float, ...]) -> None:
    table = planted_mapping(plan)
    measures = (
        (DRIFT, "task"),
        (BETWEEN, "task"),
        (BEYOND_RANDOM, "task"),
        (ACCURACY, "evaluation"),
    )
    for (measure, prompts), size in zip(measures, planted, strict=True):
        row = at_last(table, measure, prompts)
        assert row["mean"] == pytest.approx(size, abs=0.03)
        assert (row["low"] > 0) == (size > 0)
        assert (row["p"] < 0.05) == (size > 0)
    assert at_last(table, ACCURACY_GAIN, "evaluation")["mean"] == pytest.approx(
        planted[3], abs=0.03
    )


def test_the_share_is_of_the_drift_of_mapped() -> None:
    row = at_last(planted_mapping(PLANTED), DRIFT)
    assert row["share"] == pytest.approx(0.1 / 0.7, abs=0.02)
    assert row["n_seeds"] == 5
    assert row["n_prompts"] == 12


def test_q_is_corrected_within_a_measure() -> None:
    table = planted_mapping(PLANTED)
    assert set(table["measure"]) == set(MEASURES)
    for _, rows in table.groupby("measure"):
        ordered = rows.sort_values("p")
        step_up = ordered["p"].to_numpy() * len(rows) / np.arange(1, len(rows) + 1)
        by_hand = np.minimum.accumulate(step_up[::-1])[::-1].clip(max=1)
        assert ordered["q"].to_numpy() == pytest.approx(by_hand)


def test_what_was_not_run_has_no_rows() -> None:
    one_condition = planted_mapping(replace(PLANTED, conditions=("mapped",)))
    assert set(one_condition["measure"]) == {BEYOND_RANDOM, ACCURACY_GAIN}
    one_seed = planted_mapping(replace(PLANTED, seeds=(0,), random_adapters=False))
    assert set(one_seed["measure"]) == {DRIFT, ACCURACY, ACCURACY_GAIN}
    assert one_seed[one_seed["measure"] == DRIFT][["p", "q", "hedges_g"]].isna().all(axis=None)
    nothing = planted_mapping(replace(PLANTED, conditions=("unrelated",), random_adapters=False))
    assert set(nothing["measure"]) == {ACCURACY_GAIN}

"""What belongs to the mapping, and the verdicts, of studies with planted differences or none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitdrift.params import Statistics
from circuitdrift.report.mapping import (
    ACCURACY,
    ACCURACY_GAIN,
    BETWEEN,
    BEYOND_RANDOM,
    DRIFT,
    between_within_interval,
    distance_matrices,
)
from circuitdrift.report.summaries import Study, where
from circuitdrift.report.verdicts import (
    NOT_SUPPORTED,
    ONE_SEED,
    SUPPORTED,
    UNDECIDED,
    Verdict,
    circuits_differ,
    claims_table,
    criterion,
    mappings_taught,
    study_metrics,
    verdict_metrics,
)
from simulated_study import NOTHING, PLANTED, REDUCED, Plan, simulated_study

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=200, permutations=200, seed=0)


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
    interval = between_within_interval(distance[None], ["a", "a", "b", "b"], SETTINGS)
    assert interval is not None
    assert interval.mean == 3.0  # 5 - (1 + 3) / 2
    # A sample that holds one pair within has 5 - 1 or 5 - 3; one that holds both has 3.
    assert (interval.low, interval.high) == (2.0, 4.0)
    assert between_within_interval(distance[None, 1:3, 1:3], ["a", "b"], SETTINGS) is None


@pytest.mark.parametrize(
    ("plan", "planted"), [(PLANTED, (0.1, 0.2, 0.65, 0.6, 0.6)), (NOTHING, (0, 0, 0, 0, 0))]
)
def test_planted_differences_are_measured(plan: Plan, planted: tuple[float, ...]) -> None:
    table = simulated_study(plan).tables["mapping"]
    last = where(table, condition="mapped", checkpoint="100")
    for measure, size in zip(
        (DRIFT, BETWEEN, BEYOND_RANDOM, ACCURACY, ACCURACY_GAIN), planted, strict=True
    ):
        rows = where(last[last["prompts"].isin(["task", "evaluation"])], measure=measure)
        row = rows.set_index("prompts").iloc[-1]  # on task prompts, or else on evaluation prompts
        assert row["mean"] == pytest.approx(size, abs=0.03)
        assert (row["low"] > 0) == (size > 0)
        assert row["p"] < 0.05 or not size
        if measure == DRIFT and size:
            assert row["share"] == pytest.approx(0.1 / 0.7, abs=0.02)
            assert (row["n_seeds"], row["n_prompts"]) == (5, 12)
        rows = where(table, measure=measure).sort_values("p")
        step_up = rows["p"].to_numpy() * len(rows) / np.arange(1, len(rows) + 1)
        by_hand = np.minimum.accumulate(step_up[::-1])[::-1].clip(max=1)
        assert rows["q"].to_numpy() == pytest.approx(by_hand)


def test_what_was_not_run_has_no_rows() -> None:
    one_condition, one_seed = (
        simulated_study(REDUCED[name]).tables["mapping"] for name in ("one condition", "one seed")
    )
    assert set(one_condition["measure"]) == {BEYOND_RANDOM, ACCURACY_GAIN}
    assert set(one_seed["measure"]) == {DRIFT, BEYOND_RANDOM, ACCURACY, ACCURACY_GAIN}
    assert where(one_seed, measure=DRIFT)[["p", "q", "hedges_g"]].isna().all(axis=None)


def row(**changed: float) -> pd.DataFrame:
    numbers = {"mean": 0.5, "low": 0.4, "high": 0.6, "p": 0.01, "n_seeds": 5}
    return pd.DataFrame([numbers | changed])


@pytest.mark.parametrize(
    ("changed", "asked", "outcome"),
    [
        ({}, {"threshold": 0.3}, SUPPORTED),
        ({}, {"threshold": 0.4}, UNDECIDED),  # its lower end does not lie above
        ({}, {"threshold": 0.5}, UNDECIDED),
        ({}, {"threshold": 0.7}, NOT_SUPPORTED),
        ({}, {"threshold": 0.3, "alpha": 0.05}, SUPPORTED),
        ({"p": 0.05}, {"threshold": 0.3, "alpha": 0.05}, UNDECIDED),
        ({"p": math.nan}, {"threshold": 0.3, "alpha": 0.05}, UNDECIDED),
        ({"p": 0.9}, {"threshold": 0.7, "alpha": 0.05}, NOT_SUPPORTED),
        # Above zero, but all of it below the smallest difference that counts.
        ({}, {"above": 0.0, "threshold": 0.7, "alpha": 0.05}, NOT_SUPPORTED),
        ({}, {"above": 0.0, "threshold": 0.45, "alpha": 0.05}, SUPPORTED),
        ({"low": -math.inf, "high": math.inf}, {"threshold": 0.3}, UNDECIDED),
        ({"n_seeds": 1}, {"threshold": 0.3}, UNDECIDED),
        ({"n_seeds": 1}, {"threshold": 0.7}, UNDECIDED),
    ],
)
def test_a_criterion_weighs_its_interval_and_its_test(
    changed: dict[str, float], asked: dict[str, float], outcome: str
) -> None:
    judged = criterion("drift", row(**changed), "not measured", **asked)
    assert (judged.outcome, judged.value) == (outcome, 0.5)
    assert judged.reason == (ONE_SEED if changed.get("n_seeds") == 1 else None)


@pytest.mark.parametrize("nothing", [row()[:0], row(mean=math.nan)])
def test_what_was_not_measured_is_undecided_and_says_why(nothing: pd.DataFrame) -> None:
    judged = criterion("drift", nothing, "it was not run", 0.1)
    assert (judged.outcome, judged.reason, judged.value) == (UNDECIDED, "it was not run", None)


def outcomes(verdict: Verdict) -> list[str]:
    return [verdict.outcome, *(judged.outcome for judged in verdict.criteria)]


@pytest.mark.parametrize(
    ("changed", "differ", "taught"),
    [
        ({}, [SUPPORTED] * 5, [SUPPORTED] * 3),
        ({"random_adapters": False}, [UNDECIDED, UNDECIDED, *[SUPPORTED] * 3], [SUPPORTED] * 3),
        ({"recruited": False}, [UNDECIDED, *[SUPPORTED] * 2, *[UNDECIDED] * 2], [SUPPORTED] * 3),
        ({"intervened": False}, [UNDECIDED, *[SUPPORTED] * 2, *[UNDECIDED] * 2], [SUPPORTED] * 3),
        ({"changed_target": 0.0}, [UNDECIDED, *[SUPPORTED] * 2, *[UNDECIDED] * 2], [SUPPORTED] * 3),
        (
            {"conditions": ("mapped",)},
            [UNDECIDED, SUPPORTED, UNDECIDED, SUPPORTED, SUPPORTED],
            [UNDECIDED, UNDECIDED, SUPPORTED],
        ),
        ({"seeds": (0,), "recruited": False}, [UNDECIDED] * 5, [UNDECIDED] * 3),
        # Two runs against two: no permutation reaches alpha, however large the difference.
        (
            {"seeds": (0, 1)},
            [UNDECIDED, SUPPORTED, UNDECIDED, SUPPORTED, SUPPORTED],
            [UNDECIDED, UNDECIDED, SUPPORTED],
        ),
        # One refuted criterion is enough.
        (
            {"recruited_share": 0.02, "between": 0.0},
            [NOT_SUPPORTED, SUPPORTED, *[NOT_SUPPORTED] * 3],
            [SUPPORTED] * 3,
        ),
    ],
)
def test_a_verdict_follows_its_criteria(
    changed: dict[str, Any], differ: list[str], taught: list[str]
) -> None:
    study = simulated_study(replace(PLANTED, **changed))
    assert outcomes(circuits_differ(study)) == differ
    assert outcomes(mappings_taught(study)) == taught


def test_no_differences_support_neither_verdict() -> None:
    assert outcomes(circuits_differ(simulated_study(NOTHING))) == [NOT_SUPPORTED] * 5
    assert outcomes(mappings_taught(simulated_study(NOTHING)))[:2] == [NOT_SUPPORTED] * 2


def test_the_json_has_thresholds_limits_and_no_nan() -> None:
    study = simulated_study(PLANTED)
    unbounded = criterion(
        "drift", row(low=-math.inf, high=math.inf), "", 0.2, above=0.1, alpha=0.05
    )
    metrics = verdict_metrics(study, Verdict("?", (unbounded,)), mappings_taught(study))
    (judged,) = json.loads(json.dumps(metrics, allow_nan=False))["rq1"]["criteria"]
    assert judged == {
        **{"name": "drift", "value": 0.5, "low": None, "high": None, "p": 0.01},
        **{"threshold": 0.2, "must_exceed": 0.1, "alpha": 0.05},
        **{"outcome": UNDECIDED, "reason": None},
    }
    assert metrics["rq2"]["verdict"] == SUPPORTED
    limits = {"false_positive": 0.0625, "reverse_accuracy": 0.25}
    assert metrics["rq2"]["limits"] == dict.fromkeys(("base", "mapped", "shuffled"), limits)


def claims(study: Study) -> pd.Series:
    table = claims_table(study, circuits_differ(study), mappings_taught(study))
    names = [claim["name"] for claim in study.original["claims"]]
    return table.assign(name=names).set_index("name")["verdict"]


def test_claims_fall_and_stand_with_the_findings() -> None:
    planted, nothing = claims(simulated_study(PLANTED)), claims(simulated_study(NOTHING))
    assert planted[["little_learned", "circuits_alike"]].str.startswith("not found").all()
    assert nothing["circuits_alike"] == "found here too"
    one_seed = claims(simulated_study(REDUCED["one seed"]))
    assert one_seed["little_learned"].startswith("undecided")


@pytest.mark.parametrize(
    ("last_losses", "verdict"),
    [([1.0] * 5, "not found"), ([9.0] * 5, "found here too"), ([1.0, 9, 9, 9, 9], "mixed")],
)
def test_the_claim_on_the_loss_counts_runs(last_losses: list[float], verdict: str) -> None:
    study = simulated_study(REDUCED["one condition"])
    loss = study.tables["checkpoint_loss"].copy()
    loss.loc[loss["checkpoint"] == "025", "loss"] = 5.0
    loss.loc[loss["checkpoint"] == "100", "loss"] = last_losses
    changed = replace(study, tables={**study.tables, "checkpoint_loss": loss})
    assert claims(changed)["loss_rose"].startswith(verdict)


def test_experiments_compare_by_few_numbers_and_only_those_that_were_measured() -> None:
    measured = {
        "accuracy": pytest.approx(11 / 12, abs=1e-4),
        "p_answer": pytest.approx(0.86, abs=0.02),
        "loss": pytest.approx((8 / 7 + 8 / 8) / 2 + 0.2, abs=1e-4),
        "drift_task": pytest.approx(0.7, abs=0.02),
        "drift_control": pytest.approx(0.35, abs=0.02),
        "drift_random": pytest.approx(0.05, abs=0.02),
        "overlap_beyond_chance": pytest.approx(0.4 / 0.9, abs=0.02),
        "n_moved": 40,
        "n_moved_random": 3,
        "cmd": pytest.approx(0.1225, abs=0.02),
        "forgetting": 0.0,
        "n_recruited": 9,
        "accuracy_mapped_minus_shuffled": pytest.approx(7 / 12, abs=1e-4),
        "drift_beyond_shuffled": pytest.approx(0.1, abs=0.02),
        "patched_fraction": pytest.approx(0.5, abs=0.01),
    }
    assert study_metrics(simulated_study(PLANTED)) == measured
    alone = study_metrics(
        simulated_study(replace(PLANTED, conditions=("mapped",), recruited=False))
    )
    across = {"n_recruited", "accuracy_mapped_minus_shuffled", "drift_beyond_shuffled"}
    assert set(alone) == set(measured) - across - {"patched_fraction"}

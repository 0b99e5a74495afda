from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from circuitdrift.claims import MEASURED
from circuitdrift.reporting import Answers, answer
from circuitdrift.verdicts import (
    NOT_SUPPORTED,
    ONE_SEED,
    SUPPORTED,
    UNDECIDED,
    Asked,
    as_json,
    criterion,
)
from study_plans import NOTHING, PLANTED, Plan
from study_tables import study_params, study_summaries, study_tables


def answers(plan: Plan) -> Answers:
    params, tables = study_params(plan), study_tables(plan)
    return answer(params, tables, study_summaries(plan))


def row(**changed: float) -> pd.Series:
    return pd.Series({"mean": 0.5, "low": 0.4, "high": 0.6, "p": 0.01, "n_seeds": 5, **changed})


@pytest.mark.parametrize(
    ("changed", "asked", "outcome"),
    [
        ({}, Asked(0.3, 0.3), SUPPORTED),
        ({}, Asked(0.4, 0.4), UNDECIDED),  # its lower end does not lie above
        ({}, Asked(0.5, 0.5), UNDECIDED),
        ({}, Asked(0.7, 0.7), NOT_SUPPORTED),
        ({}, Asked(0.3, 0.3, alpha=0.05), SUPPORTED),
        ({"p": 0.05}, Asked(0.3, 0.3, alpha=0.05), UNDECIDED),
        ({"p": math.nan}, Asked(0.3, 0.3, alpha=0.05), UNDECIDED),
        ({"p": 0.9}, Asked(0.7, 0.7, alpha=0.05), NOT_SUPPORTED),
        # Above zero, but all of it below the smallest difference that counts.
        ({}, Asked(0.0, 0.7, alpha=0.05), NOT_SUPPORTED),
        ({}, Asked(0.0, 0.45, alpha=0.05), SUPPORTED),
        ({"low": -math.inf, "high": math.inf}, Asked(0.3, 0.3), UNDECIDED),
    ],
)
def test_a_criterion_weighs_its_interval_and_its_test(
    changed: dict[str, float], asked: Asked, outcome: str
) -> None:
    found = criterion("drift", row(**changed), asked, "not measured")
    assert (found.outcome, found.reason) == (outcome, "")


@pytest.mark.parametrize("level", [0.3, 0.7])
def test_one_seed_decides_nothing(level: float) -> None:
    found = criterion("drift", row(n_seeds=1), Asked(level, level), "not measured")
    assert (found.outcome, found.reason, found.value) == (UNDECIDED, ONE_SEED, 0.5)


@pytest.mark.parametrize("nothing", [None, row(mean=math.nan, low=math.nan, high=math.nan)])
def test_what_was_not_measured_is_undecided_and_says_why(nothing: pd.Series | None) -> None:
    found = criterion("drift", nothing, Asked(0.1, 0.1), "it was not run")
    assert (found.outcome, found.reason, found.value) == (UNDECIDED, "it was not run", None)


def outcomes(plan: Plan) -> tuple[list[str], list[str]]:
    found = answers(plan)
    differ, taught = (
        [verdict.outcome, *(criterion.outcome for criterion in verdict.criteria)]
        for verdict in (found.differ, found.taught)
    )
    return differ, taught


def test_planted_differences_support_both_verdicts() -> None:
    assert outcomes(PLANTED) == ([SUPPORTED] * 5, [SUPPORTED] * 3)


def test_no_differences_support_neither_verdict() -> None:
    differ, taught = outcomes(NOTHING)
    assert differ == [NOT_SUPPORTED] * 5
    assert taught[:2] == [NOT_SUPPORTED] * 2


@pytest.mark.parametrize(
    ("changed", "differ", "taught"),
    [
        ({"random_adapters": False}, [UNDECIDED, UNDECIDED, *[SUPPORTED] * 3], [SUPPORTED] * 3),
        ({"recruited": False}, [UNDECIDED, *[SUPPORTED] * 2, *[UNDECIDED] * 2], [SUPPORTED] * 3),
        ({"validated": False}, [UNDECIDED, *[SUPPORTED] * 2, *[UNDECIDED] * 2], [SUPPORTED] * 3),
        ({"changed_target": 0.0}, [UNDECIDED, *[SUPPORTED] * 2, *[UNDECIDED] * 2], [SUPPORTED] * 3),
        (
            {"conditions": ("mapped",)},
            [UNDECIDED, SUPPORTED, UNDECIDED, SUPPORTED, SUPPORTED],
            [UNDECIDED, UNDECIDED, SUPPORTED],
        ),
        ({"seeds": (0,)}, [UNDECIDED] * 5, [UNDECIDED] * 3),
        # Two runs against two: no permutation reaches alpha, however large the difference.
        (
            {"seeds": (0, 1)},
            [UNDECIDED, SUPPORTED, UNDECIDED, SUPPORTED, SUPPORTED],
            [UNDECIDED, UNDECIDED, SUPPORTED],
        ),
        # One refuted criterion is enough.
        (
            {"recruited_share": 0.02},
            [NOT_SUPPORTED, SUPPORTED, SUPPORTED, NOT_SUPPORTED, NOT_SUPPORTED],
            [SUPPORTED] * 3,
        ),
        (
            {"between": 0.0},
            [NOT_SUPPORTED, SUPPORTED, NOT_SUPPORTED, *[SUPPORTED] * 2],
            [SUPPORTED] * 3,
        ),
    ],
)
def test_a_verdict_follows_its_criteria(
    changed: dict[str, Any], differ: list[str], taught: list[str]
) -> None:
    assert outcomes(replace(PLANTED, **changed)) == (differ, taught)


def test_the_json_has_thresholds_and_no_nan() -> None:
    unbounded = criterion("drift", row(low=-math.inf, high=math.inf), Asked(0.1, 0.2, 0.05), "")
    found = answers(replace(PLANTED, seeds=(0,)))
    verdict = as_json(replace(found.differ, criteria=(unbounded, *found.differ.criteria)))
    first, _, unmeasured, *_ = json.loads(json.dumps(verdict, allow_nan=False))["criteria"]
    assert first == {
        "name": "drift",
        "value": 0.5,
        "low": None,
        "high": None,
        "p": 0.01,
        "threshold": 0.2,
        "must_exceed": 0.1,
        "alpha": 0.05,
        "outcome": UNDECIDED,
        "reason": None,
    }
    assert unmeasured["value"] is None
    assert "two seeds" in unmeasured["reason"]


def claims(plan: Plan) -> dict[str, str]:
    params, tables = study_params(plan), study_tables(plan)
    found = answer(params, tables, study_summaries(plan)).claims
    names = [entry["name"] for entry in tables.original["claims"]]
    return dict(zip(names, found["verdict"], strict=True))


def test_every_claim_of_the_original_is_measured() -> None:
    assert set(claims(PLANTED)) == set(MEASURED)
    table = answers(PLANTED).claims
    assert table.loc[0, "had"] == "6.669 → 6.938 → 6.782 → 6.784"
    assert table.loc[4, "claim"] == "50 examples and 27 steps may be too few"
    assert "{" not in table.to_csv()


def test_claims_fall_and_stand_with_the_findings() -> None:
    planted, nothing = claims(PLANTED), claims(NOTHING)
    assert planted["little_learned"].startswith("not found")
    assert planted["circuits_alike"].startswith("not found")
    assert nothing["circuits_alike"] == "found here too"
    assert claims(replace(PLANTED, seeds=(0,)))["little_learned"] == "undecided at this power"


@pytest.mark.parametrize(
    ("last_losses", "verdict"),
    [([1.0, 1.0], "not found"), ([9.0, 9.0], "found here too"), ([1.0, 9.0], "mixed")],
)
def test_the_claim_on_the_loss_counts_runs(last_losses: list[float], verdict: str) -> None:
    plan = replace(PLANTED, conditions=("mapped",), seeds=(0, 1))
    params, tables = study_params(plan), study_tables(plan)
    summaries = study_summaries(plan)
    loss = summaries.checkpoint_loss.copy()
    loss.loc[loss["checkpoint"] == "025", "loss"] = 5.0
    loss.loc[loss["checkpoint"] == "100", "loss"] = last_losses
    found = answer(params, tables, replace(summaries, checkpoint_loss=loss)).claims
    assert found.loc[0, "verdict"].startswith(verdict)

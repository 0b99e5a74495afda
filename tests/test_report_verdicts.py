"""Every outcome of a criterion and every verdict, by hand; planted differences and none."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitdrift.report.summaries import Study, where
from circuitdrift.report.verdicts import (
    criteria_tables,
    holm,
    rq1,
    rq2,
    study_metrics,
    verdict_metrics,
)
from simulated_study import NOTHING, PLANTED, REDUCED, Plan, simulated_study

WORDS = ("blarf", "gleem", "drimp", "glide", "plonk", "twerb")
T = float(stats.t.ppf(0.975, 4))  # six words of two types


def with_tables(study: Study, **tables: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The verdicts' tables of a study in which these stand in place of its own."""
    return criteria_tables(replace(study, tables={**study.tables, **tables}))


def criterion(tables: dict[str, pd.DataFrame], question: str, number: int) -> pd.Series:
    return where(tables["criteria"], question=question, number=number).iloc[0]


def accuracy_of(shares: Sequence[float]) -> pd.Series:
    """RQ2.1 where every assigned run answers this share of each word's near prompts."""
    study = simulated_study(PLANTED)
    table = study.tables["evaluation"]
    rows = (table["role"] == "near") & (table["checkpoint"] == "100")
    share = table["word"].map(dict(zip(WORDS, shares, strict=True))).astype(float)
    changed = table.assign(correct=table["correct"].mask(rows, share))
    return criterion(with_tables(study, evaluation=changed), "RQ2", 1)


def test_holds_with_its_interval_by_hand() -> None:
    row = accuracy_of([0.75, 0.8, 0.85, 0.7, 0.8, 0.9])
    half = T * math.sqrt((2 * 0.05**2 + 2 * 0.1**2) / 4 / 6)
    assert (row["outcome"], row["reason"]) == ("holds", "")
    assert row["estimate"] == pytest.approx(0.8)
    assert (row["low"], row["high"]) == pytest.approx((0.8 - half, 0.8 + half))
    assert (row["threshold"], row["bound"]) == pytest.approx((1 / 3 + 0.2, 1 / 3))
    assert (row["p"], row["n_words"], row["n_relabelings"]) == (1 / 64, 6, 64)


def test_fails_where_the_interval_lies_below_the_threshold_whatever_p() -> None:
    row = accuracy_of([0.38, 0.4, 0.42, 0.4, 0.44, 0.42])
    assert (row["outcome"], row["reason"], row["p"]) == ("fails", "", 1 / 64)
    assert 1 / 3 < row["low"] < row["high"] < 1 / 3 + 0.2


def test_undecided_where_the_interval_holds_the_threshold() -> None:
    row = accuracy_of([0.45, 0.55, 0.6, 0.45, 0.5, 0.55])
    assert row["high"] > 1 / 3 + 0.2 > row["estimate"]
    assert (row["outcome"], row["reason"]) == ("undecided", "the estimate is below the threshold")


def test_undecided_where_the_test_says_no() -> None:
    """Two of six words lie below chance: flipping these two gives four of 64 as large."""
    row = accuracy_of([0.3, 0.6, 0.75, 0.3, 0.65, 0.7])
    assert (row["outcome"], row["p"]) == ("undecided", 4 / 64)
    assert row["reason"].startswith("p is above 0.05")


def test_a_withheld_interval_leaves_estimate_and_test() -> None:
    """Words so far apart that intervals around a third hold the truth too rarely."""
    row = accuracy_of([0.3, 0.9, 1.0, 0.4, 0.9, 1.0])
    assert row["coverage"] < 0.93
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])
    assert (row["outcome"], row["p"]) == ("holds", 2 / 64)
    assert row["reason"].startswith("interval withheld: it covers 9")


def test_without_its_interval_a_criterion_cannot_fail() -> None:
    """The interval would lie below the threshold."""
    shares = [0, 0, 0.5, 0, 0, 0.5]
    half = T * math.sqrt(2 * (0.5**2 * 2 / 3) / 4 / 6)
    assert np.mean(shares) + half < 1 / 3 + 0.2
    row = accuracy_of(shares)
    assert math.isnan(row["high"])
    assert row["outcome"] == "undecided"


@pytest.mark.parametrize(
    ("plan", "first", "second", "sizes"),
    [
        (
            PLANTED,
            "supported (holds: 1, 2, 3, 4)",
            "meanings learned (holds: 1, 2, 3)",
            (0.3, math.exp(0.2), 0.45, math.exp(0.2), 0.8, 0.9, 0.7),
        ),
        (
            NOTHING,
            "not supported (fails: 1, 2, 3, 4)",
            "not learned (fails: 1, 2, 3)",
            (0, 1, 0, 1, 1 / 3, 0.5, 1 / 3),
        ),
    ],
)
def test_planted_differences_are_measured(
    plan: Plan, first: str, second: str, sizes: tuple[float, ...]
) -> None:
    criteria = simulated_study(plan).tables["criteria"]
    assert (rq1(criteria), rq2(criteria)) == (first, second)
    assert criteria["estimate"].tolist() == pytest.approx(sizes, abs=0.04)
    assert criteria["n_relabelings"].tolist() == [70, 5775, 64, 4096, 64, 64, 64]
    assert criteria["p_holm"][:4].tolist() == pytest.approx(holm(criteria["p"][:4]))
    assert criteria["p_holm"][4:].isna().all()


def test_what_a_study_lacks_is_named_and_no_number_stands_for_it() -> None:
    lacks = simulated_study(REDUCED["one condition"]).tables["criteria"]
    assert set(lacks["outcome"]) == {"not measured"}
    numbers = ["estimate", "low", "high", "threshold", "bound", "p", "p_holm", "n_words"]
    assert lacks[numbers].isna().all(axis=None)
    assert lacks["reason"].tolist() == [
        "it takes two runs of mapped and one of unrelated; there is mapped (4)",
        "it takes two runs each of mapped, rotated-1, rotated-2; there is mapped (4)",
        "it takes interchange between runs of mapped, rotated-1, rotated-2; there is none",
        "it takes two runs each of mapped, rotated-1, rotated-2; there is mapped (4)",
        *["it takes a run each of mapped, rotated-1, rotated-2; there is mapped (4)"] * 3,
    ]
    other = simulated_study(REDUCED["no assignment"]).tables["criteria"]
    assert other["reason"][1].endswith("there is none")
    assert rq1(lacks) == "not measured (not measured: 1, 2, 3, 4)"


def test_pairs_that_a_table_lacks_are_not_made_up() -> None:
    study = simulated_study(PLANTED)
    pairs = study.tables["between_runs"]
    one = (pairs["run_a"] == "mapped-0") & (pairs["run_b"] == "rotated-1-3")
    row = criterion(with_tables(study, between_runs=pairs[~one]), "RQ1", 2)
    assert (row["outcome"], math.isnan(row["estimate"])) == ("not measured", True)
    assert row["reason"].startswith("it takes the drift of every pair of mapped-0, mapped-1")


def test_runs_of_one_assignment_more_than_of_another_are_no_design() -> None:
    study = simulated_study(PLANTED)
    fewer = study.tables["evaluation"].query("run != 'rotated-1-3'")
    row = criterion(with_tables(study, evaluation=fewer), "RQ1", 2)
    assert row["outcome"] == "not measured"
    assert "equally many" in row["reason"]


def test_other_numbers_of_seeds_have_their_own_relabelings() -> None:
    three = replace(PLANTED, seeds=(0, 1, 2), intervened=False)
    criteria = simulated_study(three).tables["criteria"]
    assert criteria["n_relabelings"].tolist()[:2] == [20, 280]
    assert criteria["n_relabelings"][3] == 512
    # One of twenty groups: p is .05, which is as small as it gets.
    assert criteria["outcome"].tolist()[:2] == ["holds", "holds"]
    two = simulated_study(REDUCED["two seeds"]).tables["criteria"]
    assert two["n_relabelings"].tolist()[:2] == [6, 15]
    assert two["reason"][0] == "p is above 0.05; too few relabelings for a smaller p"


def test_the_assignment_ratio_must_be_above_that_on_control_prompts() -> None:
    study = simulated_study(PLANTED)
    pairs = study.tables["between_runs"]
    one, other = (pairs[name].str.rsplit("-", n=1).str[0] for name in ("run_a", "run_b"))
    apart = (pairs["role"] == "control") & (one != other)
    farther = pairs.assign(drift=pairs["drift"].mask(apart, 2 * pairs["drift"]))
    tables = with_tables(study, between_runs=farther)
    row = criterion(tables, "RQ1", 2)
    assert (row["outcome"], row["p"]) == ("undecided", 1 / 5775)
    assert row["reason"] == "not above the ratio on control prompts"
    control = where(tables["comparisons"], question="RQ1", number=2).iloc[0]
    assert (control["estimate"], control["n_units"]) == (pytest.approx(2, abs=0.02), 12)


def test_distance_closed_is_counted_beyond_the_null_that_closes_more() -> None:
    study = simulated_study(PLANTED)
    rows = study.tables["interchange"]
    way = rows["donor_d"] - rows["recipient_d"]
    shares = {"chosen": 0.5, "effect null": 0.1, "activation null": 0.2}
    closed = rows["recipient_d"] + way * rows["nodes"].map(shares).astype(float)
    tables = with_tables(study, interchange=rows.assign(patched_d=closed))
    row = criterion(tables, "RQ1", 3)
    assert row["estimate"] == pytest.approx(0.3)
    assert (row["outcome"], row["p"]) == ("holds", 1 / 64)
    beside = where(tables["comparisons"], question="RQ1", number=3).set_index("name")["estimate"]
    assert beside.to_dict() == pytest.approx(shares)


def test_with_fewer_than_five_words_left_interchange_decides_nothing() -> None:
    weak = simulated_study(REDUCED["a weak word"])
    one = criterion(dict(weak.tables), "RQ1", 3)
    assert (one["outcome"], one["n_words"], one["n_relabelings"]) == ("holds", 5, 32)
    rows = weak.tables["interchange"]
    near = rows["word"] == "glide"
    rows = rows.assign(donor_d=rows["donor_d"].mask(near, rows["recipient_d"] - 3))
    tables = with_tables(weak, interchange=rows)
    two = criterion(tables, "RQ1", 3)
    assert (two["outcome"], two["n_words"]) == ("undecided", 4)
    assert "fewer than 5 words" in two["reason"]
    out = where(tables["words"], question="RQ1", number=3).dropna(subset=["left_out"])
    out = out[out["left_out"] != ""]
    assert set(out["word"]) == {"blarf", "glide"}
    assert out["value"].isna().all()


def test_one_step_suffices_and_its_p_counts_all_three() -> None:
    study = simulated_study(NOTHING)
    pairs = study.tables["between_runs"]
    step = (pairs["checkpoint_a"] != pairs["checkpoint_b"]) & (
        pairs[["checkpoint_a", "checkpoint_b"]].max(axis=1) == "075"
    )
    tables = with_tables(
        study, between_runs=pairs.assign(drift=pairs["drift"].mask(step, 1.3 * pairs["drift"]))
    )
    row, steps = criterion(tables, "RQ1", 4), tables["steps"]
    assert steps[["from", "to"]].to_numpy().tolist() == [
        ["025", "050"],
        ["050", "075"],
        ["075", "100"],
    ]
    assert row["outcome"] == "holds"
    assert row["estimate"] == steps["estimate"][1] == pytest.approx(1.3, abs=0.02)
    assert row["p"] == steps["p"][1] == pytest.approx(3 * 8 / 4096)


def test_steps_fail_together_or_not_at_all() -> None:
    """One step's interval reaches over the threshold: for one of them it may be so."""
    study = simulated_study(NOTHING)
    assert criterion(dict(study.tables), "RQ1", 4)["outcome"] == "fails"
    pairs = study.tables["between_runs"]
    step = (pairs["checkpoint_a"] != pairs["checkpoint_b"]) & (
        pairs[["checkpoint_a", "checkpoint_b"]].min(axis=1) == "025"
    )
    by_word = dict(zip(WORDS, (0.8, 1.0, 1.25, 0.8, 1.0, 1.2), strict=True))
    factor = pairs["unit"].map(by_word).astype(float)
    wide = pairs.assign(drift=pairs["drift"].mask(step, factor * pairs["drift"]))
    assert criterion(with_tables(study, between_runs=wide), "RQ1", 4)["outcome"] == "undecided"


def test_a_word_must_beat_itself_in_unrelated_runs() -> None:
    study = simulated_study(PLANTED)
    table = study.tables["evaluation"]
    near = table["role"] == "near"
    same = with_tables(study, evaluation=table.assign(
        discrimination=table["discrimination"].mask(near, 0.9)))  # fmt: skip
    row = criterion(same, "RQ2", 2)
    assert (row["estimate"], row["outcome"]) == (pytest.approx(0.9), "undecided")
    assert "the difference to unrelated runs does not clear 0" in row["reason"]
    beside = where(same["comparisons"], question="RQ2").iloc[0]
    assert (beside["estimate"], beside["bound"], beside["p"]) == (0, 0, 1)


def test_intervals_are_simulated_at_bound_and_threshold() -> None:
    table = simulated_study(PLANTED).tables["coverage"]
    kinds = table.groupby(["question", "number"])["mean_at"].agg(lambda at: sorted(set(at)))
    assert kinds["RQ2", 1] == kinds["RQ2", 3] == ["bound", "threshold"]
    assert kinds["RQ1", 3] == ["bound", "estimate", "threshold"]
    assert table["printed"].all()
    assert table["coverage"].between(0.93, 0.97).all()


def test_holm_by_hand_counts_a_test_that_is_missing() -> None:
    assert holm(pd.Series([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    corrected = holm(pd.Series([0.01, math.nan, 0.2]))
    assert corrected[[0, 2]].tolist() == pytest.approx([0.03, 0.4])
    assert math.isnan(corrected[1])


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ("hhhh", "supported (holds: 1, 2, 3, 4)"),
        ("hfhh", "not supported (holds: 1, 3, 4; fails: 2)"),
        ("hhfn", "not supported (holds: 1, 2; fails: 3; not measured: 4)"),
        ("hhhf", "partly (holds: 1, 2, 3; fails: 4)"),
        ("hhuh", "partly (holds: 1, 2, 4; undecided: 3)"),
        ("uuuu", "partly (undecided: 1, 2, 3, 4)"),
        ("nnnn", "not measured (not measured: 1, 2, 3, 4)"),
    ],
)
def test_the_first_verdict(outcomes: str, verdict: str) -> None:
    assert rq1(with_outcomes("RQ1", outcomes)) == verdict


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ("hhh", "meanings learned (holds: 1, 2, 3)"),
        ("hff", "associations learned, not meanings (holds: 1; fails: 2, 3)"),
        ("fhh", "not learned (holds: 2, 3; fails: 1)"),
        ("hfh", "undecided (holds: 1, 3; fails: 2)"),
        ("hhu", "undecided (holds: 1, 2; undecided: 3)"),
        ("uff", "undecided (fails: 2, 3; undecided: 1)"),
        ("nnn", "not measured (not measured: 1, 2, 3)"),
    ],
)
def test_the_second_verdict(outcomes: str, verdict: str) -> None:
    assert rq2(with_outcomes("RQ2", outcomes)) == verdict


def with_outcomes(question: str, letters: str) -> pd.DataFrame:
    names = {"h": "holds", "f": "fails", "u": "undecided", "n": "not measured"}
    rows = [(question, number, names[one]) for number, one in enumerate(letters, start=1)]
    return pd.DataFrame(rows, columns=["question", "number", "outcome"])


@pytest.mark.parametrize("name", REDUCED)
def test_metrics_of_any_study_are_few_and_finite(name: str) -> None:
    study = simulated_study(REDUCED[name])
    metrics = study_metrics(study)
    assert {"accuracy", "p_answer", "loss", "drift_near", "forgetting"} <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    measured = where(study.tables["criteria"], question="RQ1").dropna(subset=["estimate"])
    assert ("assignment_ratio" in metrics) == (2 in set(measured["number"]))
    assert json.dumps(verdict_metrics(study), allow_nan=False)


def test_metrics_say_what_the_tables_say() -> None:
    study = simulated_study(PLANTED)
    criteria, metrics = study.tables["criteria"], study_metrics(study)
    estimates = criteria.set_index(["question", "number"])["estimate"]
    assert metrics["accuracy"] == round(estimates["RQ2", 1], 4)  # over the assigned runs
    assert metrics["assignment_ratio"] == round(estimates["RQ1", 2], 4)
    said: dict[str, Any] = verdict_metrics(study)
    assert said["rq2"]["verdict"] == "meanings learned"
    assert said["rq1"]["stated"] == rq1(criteria)
    assert [row["outcome"] for row in said["rq1"]["criteria"]] == ["holds"] * 4
    assert said["rq1"]["criteria"][0]["bound"] is None

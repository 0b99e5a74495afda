"""What the criteria come to: an outcome each, a verdict a question, and the headline metrics.

A criterion *holds* if its estimate reaches the threshold, its test has p <= alpha and any stated
interval clears its bound; it *fails* if its interval lies wholly below the threshold; else it is
*undecided*. Without an interval (withheld for its coverage) it holds on estimate and test alone and
cannot fail. Where runs are missing it is *not measured*. All of it as docs/preregistration.md says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.core.study import ASSIGNED
from circuitdrift.report.criteria import (
    FAILS,
    HOLDS,
    NOT_MEASURED,
    UNDECIDED,
    Measured,
    Missing,
    associations,
    belongs,
    between_checkpoints,
    causal,
    meanings,
    reproducible,
    words_not_frames,
)
from circuitdrift.report.summaries import Study, where
from circuitdrift.statistics.words import Array

COLUMNS = {
    "criteria": (
        *("question", "number", "name", "estimate", "low", "high", "threshold", "bound"),
        *("p", "p_holm", "n_words", "n_relabelings", "coverage", "outcome", "reason"),
    ),
    "comparisons": (
        *("question", "number", "name", "estimate", "low", "high", "bound", "p", "n_units"),
    ),
    "steps": ("from", "to", "estimate", "low", "high", "p"),
    "words": ("question", "number", "type", "word", "value", "left_out"),
    "coverage": (
        *("question", "number", "name", "kind", "n_words"),
        *("mean_at", "mean", "spread", "coverage", "printed"),
    ),
}


CRITERIA = (
    ("RQ1", 1, "reproducible", reproducible),
    ("RQ1", 2, "belongs to what was taught", belongs),
    ("RQ1", 3, "causal", causal),
    ("RQ1", 4, "between checkpoints", between_checkpoints),
    ("RQ2", 1, "associations", associations),
    ("RQ2", 2, "words, not frames", words_not_frames),
    ("RQ2", 3, "meanings", meanings),
)


def criteria_tables(study: Study) -> dict[str, pd.DataFrame]:
    """criteria, comparisons, steps, words, coverage.

    comparisons are what stands beside a criterion: shuffled against unrelated runs; the assignment
    ratio on control prompts; distance closed by the chosen nodes and each null; discrimination
    beyond unrelated runs. The estimate, low and high of RQ2.2 are the discrimination's, its p is
    that of the difference.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for question, number, name, measure in CRITERIA:
        about = {"question": question, "number": number}
        try:
            measured = measure(study)
        except Missing as missing:
            blank = {"outcome": missing.outcome, "reason": str(missing)}
            rows["criteria"].append({**about, "name": name, **blank})
            continue
        rows["criteria"].append({**_criterion(study, measured), **about, "name": name})
        for table, more in _rows_beside(measured).items():
            rows[table] += [{**about, **row} for row in more]
    tables = {
        name: pd.DataFrame(rows[name], columns=list(columns)) for name, columns in COLUMNS.items()
    }
    first = tables["criteria"]["question"] == "RQ1"
    tables["criteria"].loc[first, "p_holm"] = holm(tables["criteria"].loc[first, "p"])
    return tables


def _criterion(study: Study, measured: Measured) -> dict[str, Any]:
    alpha, estimate = study.params.verdicts.alpha, measured.estimate
    unmet = [
        *(() if estimate.reaches else ("the estimate is below the threshold",)),
        *(() if estimate.p <= alpha else (f"p is above {alpha:g}",)),
        *(() if 1 / measured.n_relabelings <= alpha else ("too few relabelings for a smaller p",)),
        *(() if estimate.clears else ("the interval does not clear its bound",)),
        *measured.unmet,
    ]
    outcome = UNDECIDED if unmet else HOLDS
    if measured.can_fail and estimate.below:
        outcome = FAILS
    reasons = unmet if outcome == UNDECIDED else []
    if estimate.over.withheld:
        covers = estimate.over.coverage
        reasons = [
            *reasons,
            "no interval: no type has two words"
            if math.isnan(covers)
            else f"interval withheld: it covers {covers:.1%} in simulation",
        ]
    return {
        **estimate.row,
        "threshold": estimate.threshold,
        "n_words": len(estimate.values),
        "n_relabelings": measured.n_relabelings,
        "coverage": estimate.over.coverage,
        "outcome": outcome,
        "reason": "; ".join(reasons),
    }


def _rows_beside(measured: Measured) -> dict[str, list[dict[str, Any]]]:
    words = measured.estimate.values.rename("value").reset_index().assign(left_out="")
    left_out = measured.left_out.items()
    steps = [step[-1] for step in measured.steps]
    every = (*(steps or (measured.estimate,)), *measured.comparisons)
    return {
        "words": [
            *words.set_axis(["type", "word", "value", "left_out"], axis=1).to_dict("records"),
            *({"type": kind, "word": word, "left_out": why} for (kind, word), why in left_out),
        ],
        "comparisons": [one.row for one in measured.comparisons],
        "steps": [{"from": start, "to": end, **one.row} for start, end, one in measured.steps],
        "coverage": [
            {"name": one.name, "kind": one.model.kind, "n_words": len(one.values), **row}
            for one in every
            for row in one.over.rows
        ],
    }


def holm(p: pd.Series) -> Array:
    """Holm's correction ``[n]``; a p that is missing counts as a test all the same."""
    numbers = p.astype(float).fillna(1).to_numpy()
    order = np.argsort(numbers)
    stepped = np.maximum.accumulate(numbers[order] * np.arange(numbers.size, 0, -1))
    corrected = np.empty(numbers.size)
    corrected[order] = np.minimum(stepped, 1)
    return np.where(p.isna(), np.nan, corrected)


def rq1(criteria: pd.DataFrame) -> str:
    """supported | not supported | partly | not measured, then in brackets what each one says:
    `partly (holds: 1, 2, 4; undecided: 3)`."""
    outcomes = _outcomes(criteria, "RQ1")
    values = set(outcomes.values())
    if FAILS in (outcomes[1], outcomes[2], outcomes[3]):
        verdict = "not supported"
    elif values == {HOLDS}:
        verdict = "supported"
    else:
        verdict = NOT_MEASURED if values == {NOT_MEASURED} else "partly"
    return _stated(verdict, outcomes)


def rq2(criteria: pd.DataFrame) -> str:
    """meanings learned | associations learned, not meanings | not learned | undecided |
    not measured, then in brackets as in :func:`rq1`."""
    outcomes = _outcomes(criteria, "RQ2")
    values = set(outcomes.values())
    if values == {HOLDS}:
        verdict = "meanings learned"
    elif (outcomes[1], outcomes[3]) == (HOLDS, FAILS):
        verdict = "associations learned, not meanings"
    elif outcomes[1] == FAILS:
        verdict = "not learned"
    else:
        verdict = NOT_MEASURED if values == {NOT_MEASURED} else UNDECIDED
    return _stated(verdict, outcomes)


def rq3(parts: pd.DataFrame) -> dict[int, str]:
    """By number, what each criterion of the sweep comes to: what its worst part does.

    Args:
        parts: the sweep's criteria.csv.
    """
    order = (HOLDS, UNDECIDED, FAILS, NOT_MEASURED)
    return {
        number: max(where(parts, number=number)["outcome"], key=order.index)
        for number in parts["number"].unique().tolist()
    }


def _outcomes(criteria: pd.DataFrame, question: str) -> dict[int, str]:
    rows = where(criteria, question=question)
    return dict(zip(rows["number"].astype(int), rows["outcome"], strict=True))


def _stated(verdict: str, outcomes: Mapping[int, str]) -> str:
    by_outcome = {
        outcome: ", ".join(str(number) for number, one in outcomes.items() if one == outcome)
        for outcome in (HOLDS, FAILS, UNDECIDED, NOT_MEASURED)
    }
    said = "; ".join(f"{outcome}: {numbers}" for outcome, numbers in by_outcome.items() if numbers)
    return f"{verdict} ({said})"


def study_metrics(study: Study) -> dict[str, float]:
    """For metrics/study.json: the few numbers that experiments are compared by.

    Over the words of the runs that teach an assignment, or of all where none does.
    """
    tables = study.tables
    focus = [name for name in study.conditions if name in ASSIGNED] or study.conditions
    means = tables["by_word"].groupby(["measure", "checkpoint", "condition"])["mean"].mean()
    named = {
        **{name: name for name in ("accuracy", "frame", "choice", "substitution")},
        **{name: name for name in ("discrimination", "drift_control", "gain")},
        **{"p_answer": "p", "drift_near": "drift"},
    }
    metrics = {
        name: means.get((measure, study.last), pd.Series(dtype=float)).reindex(focus).mean()
        for name, measure in named.items()
    }
    forgotten = means["control_loss", study.last].reindex(focus).mean()
    metrics["forgetting"] = forgotten - means["control_loss", "base"].mean()
    loss = where(tables["checkpoint_loss"], checkpoint=study.last)
    metrics["loss"] = loss[loss["condition"].isin(focus)]["loss"].mean()
    estimates = where(tables["criteria"], question="RQ1").set_index("number")["estimate"]
    names = ("consistency_gain", "assignment_ratio", "distance_closed", "step_ratio")
    metrics |= dict(zip(names, estimates, strict=True))
    return {name: round(float(value), 4) for name, value in metrics.items() if math.isfinite(value)}


def verdict_metrics(study: Study) -> dict[str, Any]:
    """For metrics/verdicts.json: of each question the verdict, stated in full, and criteria."""
    criteria = study.tables["criteria"]
    stated = {"RQ1": rq1(criteria), "RQ2": rq2(criteria)}
    return {
        question.lower(): {
            "verdict": text.split(" (")[0],
            "stated": text,
            "criteria": [
                {str(key): _six_digits(value) for key, value in row.items() if key != "question"}
                for row in where(criteria, question=question).to_dict("records")
            ],
        }
        for question, text in stated.items()
    }


def _six_digits(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None

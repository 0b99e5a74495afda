"""The research questions, each answered by criteria whose thresholds params.yaml fixes beforehand.

A criterion is supported where its interval lies above what is asked and its test, if it has one,
is below alpha; not supported where the interval lies wholly below the smallest value that counts;
undecided otherwise. A verdict is supported if all its criteria are, and not supported if one is
refuted. Pure functions of the summaries.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from circuitdrift.config.verdicts import Verdicts
from circuitdrift.summaries.grids import EVALUATION, MAPPED, TASK
from circuitdrift.summaries.interventions import BEYOND, NECESSITY, SUFFICIENCY
from circuitdrift.summaries.mapping import ACCURACY, ACCURACY_GAIN, BETWEEN, BEYOND_RANDOM

Outcome = Literal["supported", "not supported", "undecided"]
SUPPORTED: Outcome = "supported"
NOT_SUPPORTED: Outcome = "not supported"
UNDECIDED: Outcome = "undecided"

CIRCUITS_DIFFER = "Can circuit analysis reveal meaningful differences between training checkpoints?"
MAPPINGS_TAUGHT = "Does fine-tuning teach the model new semantic mappings?"
ONE_SEED = "one seed tells nothing about other fine-tunings"
GAIN = "accuracy on held-out sentences beyond the base model's"


@dataclass(frozen=True)
class Asked:
    """What a criterion asks.

    Attributes:
        above: the interval must lie above this.
        threshold: the smallest value that counts; an interval wholly below it refutes.
        alpha: the level of the test; None where the interval alone decides.
    """

    above: float
    threshold: float
    alpha: float | None = None


@dataclass(frozen=True)
class Criterion:
    """One measured value against what is asked of it.

    Attributes:
        value, low, high: with its interval; None where it was not measured.
        p: of its permutation test; None where there is none.
        reason: why it is undecided though no number speaks against it; empty otherwise.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    asked: Asked
    outcome: Outcome
    reason: str = ""

    @property
    def threshold(self) -> float:
        return self.asked.threshold


@dataclass(frozen=True)
class Verdict:
    question: str
    outcome: Outcome
    criteria: tuple[Criterion, ...]


def circuits_differ(
    mapping: pd.DataFrame,
    patching: pd.DataFrame,
    n_recruited: int,
    checkpoint: str,
    settings: Verdicts,
) -> Verdict:
    """Research question 1, at ``checkpoint``.

    Args:
        mapping: ``summaries.mapping.mapping``.
        patching: ``summaries.interventions.patching_summary``.
        n_recruited: how many nodes were found to be recruited.
    """
    least = settings.min_drift_difference
    no_patching = (
        "no node was recruited, so there is nothing to patch"
        if n_recruited == 0
        else "the recruited nodes were not patched, or training hardly moved the target"
    )
    carried = Asked(above=settings.min_patched_fraction, threshold=settings.min_patched_fraction)
    return _verdict(
        CIRCUITS_DIFFER,
        criterion(
            "drift of task prompts beyond a random adapter of the same norms",
            _row(mapping, measure=BEYOND_RANDOM, checkpoint=checkpoint, prompts=TASK),
            Asked(above=least, threshold=least),
            f"it takes runs of the condition {MAPPED} and random adapters",
        ),
        criterion(
            "distance of circuits between conditions beyond that between seeds",
            _row(mapping, measure=BETWEEN, checkpoint=checkpoint, prompts=TASK),
            Asked(above=0, threshold=least, alpha=settings.alpha),
            "it takes two conditions, and two seeds of one of them",
        ),
        *(
            criterion(
                f"share of the change that recruited nodes carry beyond random ones ({direction})",
                _row(patching, direction=direction, nodes=BEYOND),
                carried,
                no_patching,
            )
            for direction in (SUFFICIENCY, NECESSITY)
        ),
    )


def mappings_taught(mapping: pd.DataFrame, checkpoint: str, settings: Verdicts) -> Verdict:
    """Research question 2, at ``checkpoint``."""
    least = settings.min_accuracy_gain
    asked = Asked(above=least, threshold=least, alpha=settings.alpha)
    return _verdict(
        MAPPINGS_TAUGHT,
        criterion(
            "accuracy on held-out sentences beyond that of shuffled answers",
            _row(mapping, measure=ACCURACY, checkpoint=checkpoint, prompts=EVALUATION),
            asked,
            f"it takes runs of the condition {MAPPED} and of shuffled answers",
        ),
        criterion(
            GAIN,
            _row(mapping, measure=ACCURACY_GAIN, checkpoint=checkpoint, prompts=EVALUATION),
            asked,
            f"it takes runs of the condition {MAPPED}",
        ),
    )


def criterion(name: str, row: pd.Series | None, asked: Asked, unmeasured: str) -> Criterion:
    """Judge a row with mean, low, high, n_seeds and, where a test is asked for, p.

    Args:
        unmeasured: said where there is no row, or none of its numbers.
    """
    if row is None or not math.isfinite(row["mean"]):
        return Criterion(name, None, None, None, None, asked, UNDECIDED, unmeasured)
    value, low, high = (float(row[column]) for column in ("mean", "low", "high"))
    p = None if asked.alpha is None or math.isnan(row["p"]) else float(row["p"])
    outcome, reason = UNDECIDED, ""
    if row["n_seeds"] < 2:
        reason = ONE_SEED
    elif high < asked.threshold:
        outcome = NOT_SUPPORTED
    elif low > asked.above and (asked.alpha is None or (p is not None and p < asked.alpha)):
        outcome = SUPPORTED
    return Criterion(name, value, low, high, p, asked, outcome, reason)


def as_json(verdict: Verdict) -> dict[str, Any]:
    """For metrics/verdicts.json; a bound that is not finite is null."""
    return {
        "question": verdict.question,
        "verdict": verdict.outcome,
        "criteria": [
            {
                **{
                    key: _number(value)
                    for key, value in asdict(criterion).items()
                    if key not in ("asked", "reason")
                },
                "threshold": criterion.threshold,
                "must_exceed": criterion.asked.above,
                "alpha": criterion.asked.alpha,
                "reason": criterion.reason or None,
            }
            for criterion in verdict.criteria
        ],
    }


def _verdict(question: str, *criteria: Criterion) -> Verdict:
    outcomes = {criterion.outcome for criterion in criteria}
    if NOT_SUPPORTED in outcomes:
        return Verdict(question, NOT_SUPPORTED, criteria)
    return Verdict(question, SUPPORTED if outcomes == {SUPPORTED} else UNDECIDED, criteria)


def _row(table: pd.DataFrame, **where: str) -> pd.Series | None:
    """The one row of the condition ``mapped`` with these values, None if there is none."""
    rows = table[table["condition"] == MAPPED]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return None if rows.empty else rows.iloc[0]


def _number(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None

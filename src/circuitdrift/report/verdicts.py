"""The research questions and the original study's claims, decided by thresholds fixed beforehand.

A criterion is supported where its interval lies above what is asked and its test, if it has one,
is below alpha; not supported where the interval lies wholly below the smallest value that counts;
undecided otherwise. A verdict is supported if all its criteria are, and not supported if one is
refuted. Beside them the few numbers that experiments are compared by.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from circuitdrift.core.study import BASE, TRAINED, Run, random_change
from circuitdrift.report.faithfulness import BEYOND, CMD, NECESSITY, RECRUITED, SUFFICIENCY
from circuitdrift.report.mapping import ACCURACY, ACCURACY_GAIN, BETWEEN, BEYOND_RANDOM, DRIFT
from circuitdrift.report.style import course, page_template
from circuitdrift.report.summaries import (
    CONTROL,
    EVALUATION,
    MAPPED,
    RANDOM_ADAPTER,
    SHUFFLED,
    TASK,
    Study,
    where,
)

Outcome = Literal["supported", "not supported", "undecided"]
SUPPORTED: Outcome = "supported"
NOT_SUPPORTED: Outcome = "not supported"
UNDECIDED: Outcome = "undecided"

CIRCUITS_DIFFER = "Can circuit analysis reveal meaningful differences between training checkpoints?"
MAPPINGS_TAUGHT = "Does fine-tuning teach the model new semantic mappings?"
ONE_SEED = "one seed tells nothing about other fine-tunings"
CLAIMS = Path(__file__).with_name("claims.j2")


@dataclass(frozen=True)
class Criterion:
    """One measured value against what is asked of it.

    Attributes:
        must_exceed: the interval must lie above this.
        threshold: the smallest value that counts; an interval wholly below it refutes.
        alpha: the level of the test; None where the interval alone decides.
        value, low, high: with its interval; None where it was not measured.
        p: of its permutation test; None where there is none.
        reason: why it is undecided though no number speaks against it; None otherwise.
    """

    name: str
    must_exceed: float
    threshold: float
    alpha: float | None
    outcome: Outcome = UNDECIDED
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Verdict:
    question: str
    criteria: tuple[Criterion, ...]

    @property
    def outcome(self) -> Outcome:
        outcomes = {criterion.outcome for criterion in self.criteria}
        if NOT_SUPPORTED in outcomes:
            return NOT_SUPPORTED
        return SUPPORTED if outcomes == {SUPPORTED} else UNDECIDED


def criterion(
    name: str,
    rows: pd.DataFrame,
    unmeasured: str,
    threshold: float,
    *,
    above: float | None = None,
    alpha: float | None = None,
) -> Criterion:
    """Judge the first row by its mean, low, high, n_seeds and, where a test is asked for, p.

    Args:
        unmeasured: the reason where there is no row, or none of its numbers.
        above: what the interval must lie above; None for the threshold.
    """
    above = threshold if above is None else above
    if rows.empty or not math.isfinite(rows["mean"].iloc[0]):
        return Criterion(name, above, threshold, alpha, reason=unmeasured)
    row = rows.iloc[0]
    value, low, high = (float(row[column]) for column in ("mean", "low", "high"))
    p = None if alpha is None or math.isnan(row["p"]) else float(row["p"])
    outcome, reason = UNDECIDED, None
    if row["n_seeds"] < 2:
        reason = ONE_SEED
    elif high < threshold:
        outcome = NOT_SUPPORTED
    elif low > above and (alpha is None or (p is not None and p < alpha)):
        outcome = SUPPORTED
    return Criterion(name, above, threshold, alpha, outcome, value, low, high, p, reason)


def circuits_differ(study: Study) -> Verdict:
    """Research question 1, at the last checkpoint."""
    settings = study.params.verdicts
    mapping = where(study.tables["mapping"], condition=MAPPED, checkpoint=study.last, prompts=TASK)
    patching = where(study.tables["patching_summary"], condition=MAPPED, nodes=BEYOND)
    no_patching = (
        "the recruited nodes were not patched, or training hardly moved the target"
        if recruited_counts(study)[RECRUITED]
        else "no node was recruited, so there is nothing to patch"
    )
    drift = criterion(
        "drift of task prompts beyond a random adapter of the same norms",
        where(mapping, measure=BEYOND_RANDOM),
        f"it takes runs of the condition {MAPPED} and random adapters",
        settings.min_drift_difference,
    )
    distance = criterion(
        "distance of circuits between conditions beyond that between seeds",
        where(mapping, measure=BETWEEN),
        "it takes two conditions, and two seeds of one of them",
        settings.min_drift_difference,
        above=0,
        alpha=settings.alpha,
    )
    shares = (
        criterion(
            f"share of the change that recruited nodes carry beyond random ones ({direction})",
            where(patching, direction=direction),
            no_patching,
            settings.min_patched_fraction,
        )
        for direction in (SUFFICIENCY, NECESSITY)
    )
    return Verdict(CIRCUITS_DIFFER, (drift, distance, *shares))


def mappings_taught(study: Study) -> Verdict:
    """Research question 2, at the last checkpoint."""
    settings = study.params.verdicts
    mapping = where(
        study.tables["mapping"], condition=MAPPED, checkpoint=study.last, prompts=EVALUATION
    )
    criteria = tuple(
        criterion(
            f"accuracy on held-out sentences beyond {whose}",
            where(mapping, measure=measure),
            f"it takes runs of the condition {MAPPED}{needed}",
            settings.min_accuracy_gain,
            alpha=settings.alpha,
        )
        for measure, whose, needed in (
            (ACCURACY, "that of shuffled answers", " and of shuffled answers"),
            (ACCURACY_GAIN, "the base model's", ""),
        )
    )
    return Verdict(MAPPINGS_TAUGHT, criteria)


def verdict_metrics(study: Study, differ: Verdict, taught: Verdict) -> dict[str, Any]:
    """For metrics/verdicts.json; a bound that is not finite is null."""
    return {"rq1": _as_json(differ), "rq2": {**_as_json(taught), "limits": limits(study)}}


def _as_json(verdict: Verdict) -> dict[str, Any]:
    criteria = [
        {key: _six_digits(value) for key, value in asdict(criterion).items()}
        for criterion in verdict.criteria
    ]
    return {"question": verdict.question, "verdict": verdict.outcome, "criteria": criteria}


def _six_digits(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def limits(study: Study) -> dict[str, dict[str, float]]:
    """What bounds the second verdict, before training and after, means over a condition's runs:
    how much of the probability unseen words get, and how often a meaning finds its word.
    """
    means = study.tables["headlines"].set_index(["condition", "checkpoint"])
    models = [(BASE, BASE), *((name, study.last) for name in study.params.runs.conditions)]
    return {
        model[0]: {
            measure: round(float(means.loc[model, measure]), 4)
            for measure in ("false_positive", "reverse_accuracy")
        }
        for model in models
    }


def claims_table(study: Study, differ: Verdict, taught: Verdict) -> pd.DataFrame:
    """claim, had, measured, verdict: one row per claim of data/original_study.yaml.

    Raises:
        KeyError: for a claim that nothing here measures.
    """
    tables, checkpoints = study.tables, study.checkpoints
    losses = tables["checkpoint_loss"].pivot_table(index="run", columns="checkpoint", values="loss")
    losses = losses[[Run.parse(run).condition == study.focus for run in losses.index]][checkpoints]
    means = tables["headlines"].set_index(["condition", "checkpoint"])
    models = [(BASE, BASE), (study.focus, study.last)]
    drift = where(tables["drift_summary"], condition=study.focus, prompts=TASK)
    text = page_template(CLAIMS).render(
        losses=losses.mean(),
        n_above=int((losses.iloc[:, -1] > losses.iloc[:, 0]).sum()),
        n_runs=len(losses),
        accuracy=means.loc[models, "accuracy"],
        p=means.loc[models, "p"],
        drift=drift.set_index("checkpoint")["mean"][checkpoints],
        n_circuits=study.n_circuits,
        n_examples=study.params.dataset.n_examples,
        total_steps=study.total_steps,
        differ=differ.outcome,
        gain=taught.criteria[-1].outcome,
    )
    lines = [line.split(" | ") for line in text.splitlines()]
    answers = {name: (measured, verdict) for name, measured, verdict in lines}
    losses_of_the_original = course(entry["loss"] for entry in study.original["losses"])
    known = {**study.original, "courses": losses_of_the_original}
    rows = [
        (claim["claim"].format_map(known), claim["had"].format_map(known), *answers[claim["name"]])
        for claim in study.original["claims"]
    ]
    return pd.DataFrame(rows, columns=["claim", "had", "measured", "verdict"])


def recruited_counts(study: Study) -> dict[str, int]:
    recruited = study.tables["recruited"]
    counts = {name: len(where(recruited, direction=name)) for name in (RECRUITED, "retired")}
    return {**counts, "words": int(recruited["word"].nunique())}


def study_metrics(study: Study) -> dict[str, float]:
    """The few numbers that experiments are compared by, means over the runs of a condition.

    Of the condition ``mapped`` where it was run, else of the first. What compares conditions or
    interventions is there where they were run.
    """
    tables, focus, last = study.tables, study.focus, study.last
    means = tables["headlines"].set_index(["condition", "checkpoint"])
    final, base = means.loc[(focus, last)], means.loc[(BASE, BASE)]
    loss = where(tables["checkpoint_loss"], checkpoint=last)
    loss = loss[[Run.parse(run).condition == focus for run in loss["run"]]]
    drift = where(tables["drift_summary"], checkpoint=last)
    # Corrected for a random set, and for no ceiling: that would take a second seed.
    overlap = where(
        study.overlap_at_middle(),
        **{"condition": focus, "role": "discovery", "from": BASE, "to": last},
    ).iloc[0]
    metrics = {
        "accuracy": final["accuracy"],
        "p_answer": final["p"],
        "loss": loss["loss"].mean(),
        "forgetting": final["control_loss"] - base["control_loss"],
        "overlap_beyond_chance": (overlap["jaccard"] - overlap["null"]) / (1 - overlap["null"]),
    }
    mapping = where(tables["mapping"], checkpoint=last)
    curves = where(tables["faithfulness_summary"], condition=focus, checkpoint=last, circuit="own")
    patching = where(tables["patching_summary"], condition=MAPPED, nodes=RECRUITED)
    means_of = {
        "drift_task": where(drift, condition=focus, prompts=TASK),
        "drift_control": where(drift, condition=focus, prompts=CONTROL),
        "drift_random": where(drift, condition=RANDOM_ADAPTER, prompts=TASK),
        "cmd": where(curves, measure=CMD, ablation="mean"),
        "accuracy_mapped_minus_shuffled": where(mapping, measure=ACCURACY),
        "drift_beyond_shuffled": where(mapping, measure=DRIFT, prompts=TASK),
        "patched_fraction": where(patching, direction=SUFFICIENCY),
    }
    for name, rows in means_of.items():
        if len(rows) and math.isfinite(rows["mean"].iloc[0]):
            metrics[name] = rows["mean"].iloc[0]
    moved = where(tables["moved_features"], condition=focus)
    for name, change in (("n_moved", TRAINED), ("n_moved_random", random_change(0))):
        if len(rows := where(moved, change=change)):
            metrics[name] = (rows["n_grown"] + rows["n_shrunk"]).mean()
    # Where there were too few runs to search with, nothing is said: that is not the same as none.
    if len(where(tables["recruitment_nulls"], comparison=f"{MAPPED} vs {SHUFFLED}")):
        metrics["n_recruited"] = recruited_counts(study)[RECRUITED]
    return {name: round(float(value), 4) for name, value in metrics.items()}

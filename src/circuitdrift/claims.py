"""The original study's claims beside what was measured here. Pure; every verdict is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from circuitdrift.identifiers import BASE
from circuitdrift.verdicts import GAIN, NOT_SUPPORTED, SUPPORTED, Criterion, Outcome, Verdict

COLUMNS = ["claim", "had", "measured", "verdict"]
FOUND, NOT_FOUND, UNDECIDED = "found here too", "not found", "undecided at this power"


@dataclass(frozen=True)
class Findings:
    """What the claims are held against.

    Attributes:
        losses: mean loss up to each checkpoint, one row per run ``[n_runs, n_checkpoints]``.
        headlines: means over runs by checkpoint: accuracy and p of the evaluation prompts.
        drift: mean drift of task prompts from base at each checkpoint.
        checkpoints: in the order of training.
        n_circuits: how many circuits were computed.
        n_examples, total_steps: of a training run.
        differ, taught: the verdicts on research questions 1 and 2.
    """

    losses: pd.DataFrame
    headlines: pd.DataFrame
    drift: pd.Series
    checkpoints: tuple[str, ...]
    n_circuits: int
    n_examples: int
    total_steps: int
    differ: Verdict
    taught: Verdict

    @property
    def gain(self) -> Criterion:
        return next(criterion for criterion in self.taught.criteria if criterion.name == GAIN)


def claims_table(original: Mapping[str, Any], findings: Findings) -> pd.DataFrame:
    """claim, had, measured, verdict: one row per claim of data/original_study.yaml.

    Raises:
        KeyError: for a claim that nothing here measures.
    """
    known = {**original, "courses": course([entry["loss"] for entry in original["losses"]])}
    rows = []
    for entry in original["claims"]:
        measured, verdict = MEASURED[entry["name"]](findings)
        said = (entry["claim"].format_map(known), entry["had"].format_map(known))
        rows.append((*said, measured, verdict))
    return pd.DataFrame(rows, columns=COLUMNS)


def course(values: Any) -> str:
    return " → ".join(f"{value:.3f}" for value in values)


def _loss_rose(findings: Findings) -> tuple[str, str]:
    losses = findings.losses[list(findings.checkpoints)]
    ended_above = losses.iloc[:, -1] > losses.iloc[:, 0]
    measured = f"{course(losses.mean())} (mean since the checkpoint before)"
    n_above, n_runs = int(ended_above.sum()), len(losses)
    if n_above == n_runs:
        return measured, f"{FOUND}: the loss ended above where it began in all {n_runs} runs"
    if n_above == 0:
        return (
            measured,
            f"{NOT_FOUND}: the loss ended no higher than it began in any of {n_runs} runs",
        )
    return measured, f"mixed: the loss ended above where it began in {n_above} of {n_runs} runs"


def _little_learned(findings: Findings) -> tuple[str, str]:
    base, last = (findings.headlines.loc[name] for name in (BASE, findings.checkpoints[-1]))
    measured = "; ".join(
        f"{named} {course([base[measure], last[measure]])}"
        for measure, named in (("accuracy", "accuracy"), ("p", "probability of the answer"))
    )
    return measured, _denied(findings.gain.outcome, "held-out sentences were answered")


def _circuits_alike(findings: Findings) -> tuple[str, str]:
    measured = (
        f"drift of task prompts from base {course(findings.drift[list(findings.checkpoints)])}"
    )
    return measured, _denied(findings.differ.outcome, "they differ by more than chance")


def _needs_gpu(findings: Findings) -> tuple[str, str]:
    return f"{findings.n_circuits} circuits, computed on a CPU", NOT_FOUND


def _too_few(findings: Findings) -> tuple[str, str]:
    amount = f"{findings.n_examples} examples and {findings.total_steps} steps"
    measured = f"{amount} gave the accuracies above"
    return measured, _denied(findings.gain.outcome, "they were enough for this model")


def _denied(outcome: Outcome, because: str) -> str:
    """A claim that nothing happened falls where the finding is supported."""
    if outcome == SUPPORTED:
        return f"{NOT_FOUND}: {because}"
    return FOUND if outcome == NOT_SUPPORTED else UNDECIDED


MEASURED: Mapping[str, Callable[[Findings], tuple[str, str]]] = {
    "loss_rose": _loss_rose,
    "little_learned": _little_learned,
    "circuits_alike": _circuits_alike,
    "needs_gpu": _needs_gpu,
    "too_few": _too_few,
}

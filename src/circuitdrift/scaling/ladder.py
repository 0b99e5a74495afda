"""A ladder of experiments, each rung one change after the one before. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from circuitdrift.config.statistics import Statistics
from circuitdrift.config.verdicts import Verdicts
from circuitdrift.scaling import names as of
from circuitdrift.scaling.differences import difference
from circuitdrift.scaling.findings import Finding, described
from circuitdrift.scaling.frames import flattened
from circuitdrift.scaling.tables import Experiment

SHOWN = (
    *(of.LOSS, of.ACCURACY, of.BASE_ACCURACY, of.ACCURACY_GAIN, of.P_ANSWER, of.BASE_P_ANSWER),
    *(of.P_GAIN, of.DRIFT, of.DRIFT_CONTROL, of.DRIFT_RANDOM, of.DRIFT_BEYOND),
    *(of.MOVED, of.MOVED_RANDOM),
)
STEPPED = (of.ACCURACY, of.P_ANSWER, of.DRIFT)


def rungs(members: Sequence[Experiment], settings: Statistics) -> list[Finding]:
    """Each rung with what it changed, its measures, and how far they moved since the rung before.

    Returns:
        name, steps, steps_before (None on the first), loss_on, changes (key, before, after), the
        measures by name, and ``since``: by measure, the difference to the rung before; empty on
        the first.
    """
    found = []
    for before, rung in zip((None, *members), members, strict=False):
        found.append(
            {
                "name": rung.name,
                "steps": rung.steps,
                "steps_before": None if before is None else before.steps,
                "loss_on": rung.params.train.loss_on,
                "changes": [] if before is None else changes(before, rung),
                **{measure: described(rung, measure) for measure in SHOWN},
                "since": {}
                if before is None
                else {
                    measure: {
                        "measure": measure,
                        **vars(difference(before, rung, measure, settings)),
                    }
                    for measure in STEPPED
                },
            }
        )
    return found


def changes(before: Experiment, after: Experiment) -> list[tuple[str, Any, Any]]:
    """The params in which two experiments differ, with both values, in sorted order."""
    one, other = flattened(before.params), flattened(after.params)
    return [
        (key, one.get(key), other.get(key))
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]


def first_above(found: Sequence[Finding], measure: str, least: float) -> Finding | None:
    """The first rung whose interval of ``measure`` lies above ``least``."""
    return next((rung for rung in found if rung[measure]["low"] > least), None)


def largest_step(found: Sequence[Finding], measure: str) -> Finding | None:
    """The rung at which ``measure`` moved most since the one before."""
    moved = [rung for rung in found[1:] if math.isfinite(rung["since"][measure]["mean"])]
    return max(moved, key=lambda rung: abs(rung["since"][measure]["mean"]), default=None)


def start(first: Experiment) -> Finding:
    """How much of its learning rate the first rung ever saw."""
    train = first.params.train
    ramp = min(1.0, first.steps / train.warmup_steps) if train.warmup_steps else 1.0
    return {
        "name": first.name,
        "n_examples": first.params.dataset.n_examples,
        "batch_size": train.batch_size,
        "steps": first.steps,
        "warmup_steps": train.warmup_steps,
        "learning_rate": train.learning_rate,
        "reached": ramp * train.learning_rate,
        "share": ramp,
    }


def climb(members: Sequence[Experiment], settings: Statistics, asked: Verdicts) -> Finding:
    """What the ladder says: where learning and drift begin, and which change did most.

    ``learned``, ``answers`` and ``moved`` are the first rungs whose intervals lie above what the
    verdicts ask: the gain in accuracy over the base model, the gain in the answer's probability,
    which is asked as much as accuracy, and drift beyond random adapters. ``other_steps`` are the
    rungs that take another number of steps than the first.
    """
    found = rungs(members, settings)
    return {
        "rungs": found,
        "start": start(members[0]),
        "learned": first_above(found, of.ACCURACY_GAIN, asked.min_accuracy_gain),
        "answers": first_above(found, of.P_GAIN, asked.min_accuracy_gain),
        "moved": first_above(found, of.DRIFT_BEYOND, asked.min_drift_difference),
        "largest": {measure: largest_step(found, measure) for measure in STEPPED},
        "other_steps": [rung for rung in found if rung["steps"] != members[0].steps],
        "scopes": len({rung["loss_on"] for rung in found}) > 1,
    }

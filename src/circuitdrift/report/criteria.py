"""The registered criteria, each measured to the letter of docs/preregistration.md.

Where the study lacks what a criterion takes it raises :class:`Missing`, and no number stands for
it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.core.study import ASSIGNED, Run
from circuitdrift.report.summaries import (
    CHOSEN,
    NULLS,
    Study,
    closed_by_word,
    condition_of,
    ratio_model,
    where,
)
from circuitdrift.statistics.coverage import (
    DIFFERENCE,
    LOG_RATIO,
    Checked,
    Model,
    checked_interval,
)
from circuitdrift.statistics.runs import (
    RelabelingTest,
    assignment_test,
    consistency_test,
    step_test,
)
from circuitdrift.statistics.words import Array, sign_flip_p

HOLDS, FAILS, UNDECIDED, NOT_MEASURED = "holds", "fails", "undecided", "not measured"
MAPPED, SHUFFLED, UNRELATED = "mapped", "shuffled", "unrelated"
EQUAL = 1e-9  # estimates and thresholds that differ by less are equal but for rounding


class Missing(Exception):  # noqa: N818 - no error: a study may have fewer runs
    """What a criterion takes and the study has not; the criterion has no number then."""

    def __init__(self, reason: str, outcome: str = NOT_MEASURED) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass(frozen=True)
class Estimate:
    """A mean over words or control prompts: its interval, and what is asked of it.

    Attributes:
        values: by type and unit.
        over: the checked interval, on the scale of the model (logs of ratios).
        bound: what the interval must lie above, where something is registered.
    """

    name: str
    values: pd.Series
    model: Model
    over: Checked
    threshold: float = math.nan
    bound: float = math.nan
    p: float = math.nan

    @property
    def numbers(self) -> dict[str, float]:
        ends = {"estimate": self.over.mean, "low": self.over.low, "high": self.over.high}
        if self.model.kind == "log ratio":
            return {name: float(np.exp(value)) for name, value in ends.items()}
        return ends

    @property
    def row(self) -> dict[str, Any]:
        about = {"name": self.name, "bound": self.bound, "p": self.p, "n_units": len(self.values)}
        return {**about, **self.numbers}

    @property
    def clears(self) -> bool:
        """Nothing registered says otherwise."""
        low = self.numbers["low"]
        return math.isnan(self.bound) or math.isnan(low) or low > self.bound

    @property
    def reaches(self) -> bool:
        return self.numbers["estimate"] >= self.threshold - EQUAL

    @property
    def below(self) -> bool:
        """The interval lies wholly below the threshold."""
        return self.numbers["high"] < self.threshold


@dataclass(frozen=True)
class Measured:
    """What a criterion gave.

    Attributes:
        unmet: what else is registered and not so, in words.
        can_fail: whether nothing beside the estimate speaks against it.
        left_out: by type and word, why.
    """

    estimate: Estimate
    n_relabelings: int
    unmet: tuple[str, ...] = ()
    can_fail: bool = True
    comparisons: tuple[Estimate, ...] = ()
    steps: tuple[tuple[str, str, Estimate], ...] = ()
    left_out: Mapping[tuple[str, str], str] = field(default_factory=dict)


def reproducible(study: Study) -> Measured:
    """RQ1.1: consistency of two `mapped` runs beyond that of one with an `unrelated` run."""
    runs = _runs(study, {MAPPED: 2, UNRELATED: 1}, "two runs of mapped and one of unrelated")
    threshold = study.params.verdicts.min_consistency_gain
    test, estimate = _consistency(study, MAPPED, runs, threshold)
    beside = []
    if sum(run.condition == SHUFFLED for run in _all_runs(study)) > 1:
        others = _runs(study, {SHUFFLED: 2, UNRELATED: 1}, "")
        beside.append(_consistency(study, SHUFFLED, others)[1])
    return Measured(estimate, test.n_relabelings, comparisons=tuple(beside))


def _consistency(
    study: Study, condition: str, runs: Sequence[Run], threshold: float = math.nan
) -> tuple[RelabelingTest, Estimate]:
    rows = study.tables["consistency"].assign(checkpoint_a="", checkpoint_b="")
    units, matrix = _of_pairs(rows, "consistency", runs, [""])
    test = consistency_test(matrix[:, 0, :, 0], [run.condition == condition for run in runs])
    name = f"{condition} against unrelated"
    return test, _estimate(study, name, units, test.by_word, DIFFERENCE, threshold, p=test.p)


def belongs(study: Study) -> Measured:
    """RQ1.2: the assignment ratio, above that on control prompts."""
    runs = _assigned_runs(study, 2)
    threshold = study.params.verdicts.min_assignment_ratio
    near, control = (
        _assignment(study, role, runs, bar)
        for role, bar in (("near", threshold), ("control", math.nan))
    )
    ratios = [estimate.numbers["estimate"] for _, estimate in (near, control)]
    unmet = () if ratios[0] > ratios[1] else ("not above the ratio on control prompts",)
    return Measured(near[1], near[0].n_relabelings, unmet, comparisons=(control[1],))


def _assignment(
    study: Study, role: str, runs: Sequence[Run], threshold: float
) -> tuple[RelabelingTest, Estimate]:
    rows = where(study.tables["between_runs"], role=role)
    units, matrix = _of_pairs(rows, "drift", runs, [study.last])
    test = assignment_test(matrix[:, 0, :, 0], [run.condition for run in runs])
    name = f"assignment ratio on {role} prompts"
    logs = np.log(test.by_word)
    return test, _estimate(study, name, units, logs, LOG_RATIO, threshold, p=test.p)


def causal(study: Study) -> Measured:
    """RQ1.3: distance closed by the chosen nodes beyond the null that closes more."""
    settings = study.params.verdicts
    rows = where(closed_by_word(study), k=settings.patched_nodes)
    _check_interchange(study, rows)
    words = rows.set_index(["type", "word"])
    left_out = words[words["left_out"] != ""]["left_out"].to_dict()
    inside = words[words["left_out"] == ""]
    shares = {str(name): group["value"].sort_index() for name, group in inside.groupby("nodes")}
    if len(inside) == 0:
        reason = next(iter(left_out.values()))
        raise Missing(f"every word is left out: {reason}", UNDECIDED)
    null = max(NULLS, key=lambda name: shares[name].mean())
    beyond = shares[CHOSEN] - shares[null]
    distances = where(inside, nodes=CHOSEN)["distance"].sort_index()
    model = ratio_model(distances, list(beyond.index.get_level_values("type")), study.params)

    def over(name: str, values: pd.Series, **asked: float) -> Estimate:
        return _estimate(study, name, values.index, values, model, **asked)

    p = sign_flip_p(beyond) if len(beyond) > 1 else 1.0
    asked = {"threshold": settings.min_distance_closed, "bound": 0.0, "p": p}
    few = len(beyond) < settings.min_patched_words
    return Measured(
        over(f"chosen beyond the {null}", beyond, **asked),
        2 ** len(beyond),
        (f"fewer than {settings.min_patched_words} words",) if few else (),
        can_fail=not few,
        comparisons=tuple(over(name, shares[name]) for name in (CHOSEN, *NULLS)),
        left_out=left_out,
    )


def _check_interchange(study: Study, rows: pd.DataFrame) -> None:
    """At the number of nodes, between runs of all assignments, with both nulls."""
    table, n_nodes = study.tables["interchange"], study.params.verdicts.patched_nodes
    there = {side: {condition_of(run) for run in table[side]} for side in ("donor", "recipient")}
    if any(conditions != set(ASSIGNED) for conditions in there.values()):
        names = ", ".join(sorted(there["recipient"])) or "none"
        raise Missing(
            f"it takes interchange between runs of {', '.join(ASSIGNED)}; there is {names}"
        )
    if set(rows["nodes"]) != {CHOSEN, *NULLS}:
        nodes = ", ".join(sorted(set(rows["nodes"]))) or "none"
        raise Missing(f"it takes {n_nodes} chosen nodes and two nulls; there is {nodes}")


def between_checkpoints(study: Study) -> Measured:
    """RQ1.4: the step ratio, at the best of the steps; p times the number of steps."""
    runs = _assigned_runs(study, 2)
    steps = list(pairwise(study.checkpoints))
    if not steps:
        raise Missing(f"it takes two checkpoints; there is {study.last}")
    settings, near = study.params.verdicts, where(study.tables["between_runs"], role="near")
    labels = [run.condition for run in runs]
    estimates, n_relabelings = [], 0
    for step in steps:
        units, matrix = _of_pairs(near, "drift", runs, step)
        test = step_test(matrix, labels)
        estimates.append(
            _estimate(
                study,
                f"step ratio {step[0]} to {step[1]}",
                units,
                np.log(test.by_word),
                LOG_RATIO,
                settings.min_step_ratio,
                p=min(1.0, test.p * len(steps)),
            )
        )
        n_relabelings = test.n_relabelings
    # A step that reaches all that is asked before one that is merely larger.
    best = max(
        estimates,
        key=lambda one: (one.reaches and one.p <= settings.alpha, one.numbers["estimate"]),
    )
    return Measured(
        best,
        n_relabelings,
        # "For one of the steps" is refuted where it is for every one.
        can_fail=all(estimate.below for estimate in estimates),
        steps=tuple((*step, one) for step, one in zip(steps, estimates, strict=True)),
    )


def associations(study: Study) -> Measured:
    """RQ2.1: balanced accuracy on near prompts."""
    gain = study.params.verdicts.min_accuracy_above_chance
    return _beyond_chance(study, "balanced accuracy", "near", gain)


def words_not_frames(study: Study) -> Measured:
    """RQ2.2: discrimination, and beyond that of the same words in `unrelated` runs."""
    _assigned_runs(study, 1)
    _runs(study, {UNRELATED: 1}, "a run of unrelated")
    values, trials = _balanced(study, "near", "discrimination", list(ASSIGNED))
    difference = values - _balanced(study, "near", "discrimination", [UNRELATED])[0]
    threshold = study.params.verdicts.min_discrimination
    p = sign_flip_p(difference)
    own = _estimate(
        study, "discrimination", values.index, values, Model("share", trials), threshold, p=p
    )
    beyond = _estimate(
        study, "beyond unrelated runs", values.index, difference, DIFFERENCE, bound=0.0, p=p
    )
    unmet = () if beyond.clears else ("the difference to unrelated runs does not clear 0",)
    return Measured(own, 2 ** len(values), unmet, comparisons=(beyond,))


def meanings(study: Study) -> Measured:
    """RQ2.3: substitution."""
    gain = study.params.verdicts.min_substitution_above_chance
    return _beyond_chance(study, "substitution", "substitution", gain)


def _beyond_chance(study: Study, name: str, role: str, gain: float) -> Measured:
    """Share of right answers; chance is one in as many as a type has words."""
    _assigned_runs(study, 1)
    values, trials = _balanced(study, role, "correct", list(ASSIGNED))
    chance = 1 / values.groupby("type").transform("size")
    bound = float(chance.mean())
    model, p = Model("share", trials), sign_flip_p(values - chance)
    estimate = _estimate(study, name, values.index, values, model, bound + gain, bound, p)
    return Measured(estimate, 2 ** len(values))


def _estimate(  # noqa: PLR0917 - what is registered for one number
    study: Study,
    name: str,
    units: pd.Index,
    values: Array | pd.Series,
    model: Model,
    threshold: float = math.nan,
    bound: float = math.nan,
    p: float = math.nan,
) -> Estimate:
    """Of ``values`` by type and unit; ratios come as logs, their threshold and bound do not."""
    logs = model.kind == "log ratio"
    marks = {"bound": bound, "threshold": threshold}
    at = {
        name: math.log(mark) if logs else mark
        for name, mark in marks.items()
        if not math.isnan(mark)
    }
    types = list(units.get_level_values(0))
    over = checked_interval(values, types, model, study.params, at)
    shown = np.exp(values) if logs else values
    of_units = pd.Series(np.asarray(shown), index=units)
    return Estimate(name, of_units, model, over, threshold, bound, p)


def _all_runs(study: Study) -> list[Run]:
    names = set(study.tables["evaluation"]["run"]) - {"base"}
    return sorted(Run.parse(str(name)) for name in names)


def _runs(study: Study, numbers: Mapping[str, int], needed: str) -> list[Run]:
    """The runs of these conditions.

    Raises:
        Missing: where there are fewer than these numbers of them.
    """
    runs = [run for run in _all_runs(study) if run.condition in numbers]
    there = Counter(run.condition for run in runs)
    if any(there[condition] < number for condition, number in numbers.items()):
        names = ", ".join(f"{condition} ({there[condition]})" for condition in sorted(there))
        raise Missing(f"it takes {needed}; there is {names or 'none'}")
    return runs


def _assigned_runs(study: Study, number: int) -> list[Run]:
    each = ("a run", "two runs")[number - 1]
    needed = f"{each} each of {', '.join(ASSIGNED)}"
    runs = _runs(study, dict.fromkeys(ASSIGNED, number), needed)
    there = Counter(run.condition for run in runs)
    if len(set(there.values())) > 1:
        raise Missing(f"it takes equally many runs of each assignment; there is {dict(there)}")
    return runs


def _of_pairs(
    rows: pd.DataFrame, value: str, runs: Sequence[Run], checkpoints: Sequence[str]
) -> tuple[pd.MultiIndex, Array]:
    """Units and ``value`` of pairs ``[n_units, n_checkpoints, n_runs, n_checkpoints, n_runs]``.

    A run with itself is 0, and so are pairs of two checkpoints of different conditions.

    Raises:
        Missing: where the table has not all pairs.
    """
    names = [run.name for run in runs]
    sides = [("run_a", "checkpoint_a"), ("run_b", "checkpoint_b")]
    for run, checkpoint in sides:
        rows = rows[rows[run].isin(names) & rows[checkpoint].isin(list(checkpoints))]
    keys = pd.MultiIndex.from_frame(rows[["type", "unit"]].fillna({"type": ""}))
    units = keys.unique().sort_values()
    ends = [
        (pd.Index(list(checkpoints)).get_indexer(rows[at]), pd.Index(names).get_indexer(rows[run]))
        for run, at in sides
    ]
    n = len(names)
    matrix = np.full((len(units), len(checkpoints), n, len(checkpoints), n), np.nan)
    for (at_a, run_a), (at_b, run_b) in (ends, ends[::-1]):
        matrix[units.get_indexer(keys), at_a, run_a, at_b, run_b] = rows[value]
    never = np.eye(n, dtype=bool)
    if len(checkpoints) > 1:
        conditions = np.array([run.condition for run in runs])
        never |= conditions[:, None] != conditions
    matrix = np.where(never.reshape(1, 1, n, 1, n), 0, matrix)
    if matrix.size == 0 or np.isnan(matrix).any():
        raise Missing(f"it takes the {value} of every pair of {', '.join(names)}")
    return units, matrix


def _balanced(
    study: Study, role: str, column: str, conditions: Sequence[str]
) -> tuple[pd.Series, int]:
    """Of each (type, word) the mean over conditions, and how many answers it is the mean of."""
    rows = where(study.tables["evaluation"], role=role, checkpoint=study.last)
    rows = rows[rows["condition"].isin(list(conditions))].dropna(subset=[column])
    if rows.empty:
        raise Missing(f"it takes {role} prompts; there is none")
    by_run = rows.groupby(["type", "word", "condition", "run"])[column].mean()
    by_assignment = by_run.groupby(["type", "word", "condition"]).mean()
    trials = int(rows.groupby(["type", "word"]).size().min())
    return by_assignment.groupby(["type", "word"]).mean(), trials

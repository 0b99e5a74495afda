"""What the experiments of a sweep say: numbers for the page's sentences and tables. Pure.

What is compared was fixed by the plan; what was picked by its size is called so on the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circuitdrift.config.statistics import Statistics
from circuitdrift.scaling import names as of
from circuitdrift.scaling.differences import Ends, correlation, difference, ends_of
from circuitdrift.scaling.frames import (
    PRODUCT,
    arms_of,
    mean,
    members_of,
    on_the_same_recipe,
    row_of,
    value_at,
)
from circuitdrift.scaling.tables import Experiment
from circuitdrift.sweeps.plan import Sweep

Finding = dict[str, Any]

# What the page follows from experiment to experiment, and what it puts beside each as its null.
INSIDE = {
    of.DRIFT: of.DRIFT_RANDOM,
    of.OVERLAP_BEYOND: None,  # its null is subtracted already
    of.OVERLAP_CORRECTED: None,
    of.MOVED: of.MOVED_RANDOM,
}
# What the mapping does not ask for, beside the base model's; forgetting is beyond it already.
BESIDES = {
    of.DRIFT_CONTROL: None,
    of.FORGETTING: None,
    of.FALSE_POSITIVE: of.BASE_FALSE_POSITIVE,
}
# What is compared between two experiments.
COMPARED = (of.ACCURACY, of.P_ANSWER, of.DRIFT, of.OVERLAP_BEYOND, of.MOVED_BEYOND, of.CMD)


def described(experiment: Experiment, measure: str) -> Finding:
    """One measure of one experiment, with the experiment's name and steps."""
    return {
        "name": experiment.name,
        "steps": experiment.steps,
        "measure": measure,
        **row_of(experiment, measure),
    }


def teaching(sweep: Sweep, experiments: Sequence[Experiment], settings: Statistics) -> Finding:
    """Whether more of what the product arms vary teaches more.

    Returns:
        lowest, highest: of accuracy, picked by it; base: the base model's; ends: for each key of an
        arm, how accuracy and the answer's probability differ between its ends.
    """
    recipe = on_the_same_recipe(sweep, experiments)
    known = [experiment for experiment in recipe if math.isfinite(mean(experiment, of.ACCURACY))]
    if not known:
        return {"ends": []}
    ordered = sorted(known, key=lambda one: (mean(one, of.ACCURACY), one.name))
    return {
        "n": len(known),
        "lowest": described(ordered[0], of.ACCURACY),
        "highest": described(ordered[-1], of.ACCURACY),
        "base": described(ordered[0], of.BASE_ACCURACY),
        "ends": [
            {
                "key": key,
                "least": value_at(pairs[0].least.params, key),
                "most": value_at(pairs[0].most.params, key),
                **{
                    measure: tally(pairs, measure, settings)
                    for measure in (of.ACCURACY, of.P_ANSWER)
                },
            }
            for key, pairs in product_ends(sweep, experiments)
        ],
    }


def product_ends(sweep: Sweep, experiments: Sequence[Experiment]) -> list[tuple[str, list[Ends]]]:
    """For each key of each product arm, the ends at every setting of the arm's other keys.

    Only settings whose ends are the arm's own: an unfinished end would shorten the comparison.
    """
    found = []
    for arm in arms_of(sweep, PRODUCT):
        members = {member.name: member for member in sweep.members}
        for key in arm.keys:
            planned = [value_at(members[name].params, key) for name in arm.members]
            others = [other for other in arm.keys if other != key]
            pairs = [
                ends
                for ends in ends_of(members_of(experiments, arm), key, others)
                if value_at(ends.least.params, key) == min(planned)
                and value_at(ends.most.params, key) == max(planned)
            ]
            if pairs and min(planned) != max(planned):
                found.append((key, pairs))
    return found


def tally(pairs: Sequence[Ends], measure: str, settings: Statistics) -> Finding:
    """How a measure differs between the ends, over the settings of the other keys."""
    found = [difference(ends.least, ends.most, measure, settings) for ends in pairs]
    return {
        "n": len(found),
        "above": sum(one.low > 0 for one in found),
        "below": sum(one.high < 0 for one in found),
        **_range(one.mean for one in found),
    }


def _range(values: Iterable[float]) -> Finding:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return {"smallest": math.nan, "largest": math.nan}
    return {"smallest": min(known), "largest": max(known)}


def growth(sweep: Sweep, experiments: Sequence[Experiment], least_drift: float) -> Finding:
    """How drift, overlap and moved features go with steps.

    Args:
        least_drift: beyond random adapters, what the interval must lie above to count.
    """
    recipe = _by_steps(sweep, experiments)
    low = [row_of(experiment, of.DRIFT_BEYOND)["low"] for experiment in recipe]
    beyond = sum(end > least_drift for end in low)
    return {"rows": _along_steps(recipe, INSIDE), "beyond": beyond, "n": len(recipe)}


def besides(sweep: Sweep, experiments: Sequence[Experiment]) -> list[Finding]:
    """How what the mapping does not ask for goes with steps."""
    return _along_steps(_by_steps(sweep, experiments), BESIDES)


def _by_steps(sweep: Sweep, experiments: Sequence[Experiment]) -> list[Experiment]:
    return sorted(on_the_same_recipe(sweep, experiments), key=lambda one: (one.steps, one.name))


def _along_steps(recipe: Sequence[Experiment], nulls: Mapping[str, str | None]) -> list[Finding]:
    """Each measure at fewest and at most steps, with its null there."""
    steps = [experiment.steps for experiment in recipe]
    rows = []
    for measure, null in nulls.items():
        known = [one for one in recipe if math.isfinite(mean(one, measure))]
        if known:
            rho, n = correlation(recipe, steps, measure)
            rows.append(
                {
                    "measure": measure,
                    "fewest": described(known[0], measure),
                    "most": described(known[-1], measure),
                    "null": null and [described(one, null) for one in (known[0], known[-1])],
                    "rho": rho,
                    "n": n,
                }
            )
    return rows


def faithful(sweep: Sweep, experiments: Sequence[Experiment]) -> Finding:
    """Whether circuits of longer training do what their model does as well as others.

    Returns:
        n experiments in which it is defined, unknown in which it is not; below: in how many the
        interval of the circuits' own distance lies below that of random circuits; ends: that
        distance at fewest and at most steps, with random circuits' (null), that of the base model's
        circuits in the same models (base_circuit) and what is kept at one size (kept); in_base: the
        base model's own; rho with steps.
    """
    recipe = _by_steps(sweep, experiments)
    known = [one for one in recipe if math.isfinite(mean(one, of.CMD))]
    if not known:
        return {"n": 0, "unknown": len(recipe)}
    rho, n = correlation(known, [one.steps for one in known], of.CMD)
    return {
        "n": n,
        "unknown": len(recipe) - n,
        "rho": rho,
        "below": sum(
            row_of(one, of.CMD)["high"] < row_of(one, of.CMD_RANDOM)["low"] for one in known
        ),
        "in_base": described(known[0], of.CMD_OF_BASE),
        "base_circuit": [described(one, of.CMD_BASE) for one in (known[0], known[-1])],
        "ends": [described(one, of.CMD) for one in (known[0], known[-1])],
        "kept": [described(one, of.KEPT) for one in (known[0], known[-1])],
        "null": [described(one, of.CMD_RANDOM) for one in (known[0], known[-1])],
    }

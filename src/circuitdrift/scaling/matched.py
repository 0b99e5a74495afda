"""Steps or data: sizes at equal steps beside steps at equal size. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from circuitdrift.config.statistics import Statistics
from circuitdrift.scaling.differences import Ends, difference, ends_of, spread
from circuitdrift.scaling.findings import COMPARED, Finding, product_ends
from circuitdrift.scaling.frames import EPOCHS, SIZE, TOGETHER, arms_of, members_of, value_at
from circuitdrift.scaling.tables import Experiment
from circuitdrift.sweeps.plan import Sweep


def matched(sweep: Sweep, experiments: Sequence[Experiment], settings: Statistics) -> list[Finding]:
    """An entry for each arm of kind together that varies the data's size.

    Returns:
        arm; sizes; steps (fewest, most) of its experiments; longer: steps (fewest, most) of the
        product arms' experiments that differ in epochs alone, None where there are none; factors:
        most over fewest steps at each size; rows, one a measure.
    """
    longer = [
        ends for key, pairs in product_ends(sweep, experiments) if key == EPOCHS for ends in pairs
    ]
    return [
        {
            "arm": arm.name,
            "sizes": [value_at(one.params, SIZE) for one in sizes.all],
            "steps": _fewest_and_most([sizes]),
            "longer": _fewest_and_most(longer) if longer else None,
            "factors": [f"{ends.most.steps / ends.least.steps:.3g}" for ends in longer],
            "rows": [
                _row(sizes, longer, measure, settings)
                for measure in COMPARED
                if math.isfinite(spread(sizes.all, measure))
            ],
        }
        for arm in arms_of(sweep, TOGETHER)
        if SIZE in arm.keys
        for sizes in ends_of(members_of(experiments, arm), SIZE, [])
    ]


def _fewest_and_most(several: Sequence[Ends]) -> tuple[int, int]:
    steps = [experiment.steps for ends in several for experiment in ends.all]
    return min(steps), max(steps)


def _row(sizes: Ends, longer: Sequence[Ends], measure: str, settings: Statistics) -> Finding:
    """One measure over sizes and over steps.

    Returns:
        measure; size and steps (one a size): the difference between the ends with its interval, and
        the spread over all; share: the spread over sizes as a share of the mean spread over steps.
    """
    size = _contrast(sizes, measure, settings)
    steps = [_contrast(ends, measure, settings) for ends in longer]
    known = [one["spread"] for one in steps if math.isfinite(one["spread"])]
    over_steps = sum(known) / len(known) if known else math.nan
    return {
        "measure": measure,
        "size": size,
        "steps": steps,
        "share": size["spread"] / over_steps if over_steps > 0 else math.nan,
    }


def _contrast(ends: Ends, measure: str, settings: Statistics) -> dict[str, Any]:
    return {
        "measure": measure,
        "held": ends.held,
        **vars(difference(ends.least, ends.most, measure, settings)),
        "spread": spread(ends.all, measure),
    }

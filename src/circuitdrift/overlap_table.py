"""The table of overlaps between the circuits of a run's checkpoints, corrected for chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.comparison import Array
from circuitdrift.config.compare import Compare
from circuitdrift.identifiers import BASE, Run
from circuitdrift.node_sets import NodeSets, chance_corrected, random_jaccard, set_jaccard

SetsOfPrompts = Sequence[NodeSets]


def overlap_table(
    base: SetsOfPrompts,
    runs: Mapping[Run, Mapping[str, SetsOfPrompts]],
    roles: Sequence[str],
    settings: Compare,
    seed: int,
) -> pd.DataFrame:
    """Node overlap of every two of a run's checkpoints, the base among them.

    Args:
        base: of every prompt.
        runs: by run and checkpoint, the earliest first; of the same prompts.
        roles: of the prompts.
        settings: with the node sets' thresholds and the number of random sets.
        seed: of the random sets.

    Returns:
        a row per run, pair, role and threshold: mean Jaccard index over the prompts, that of
        random sets (null), that of two seeds of the condition at the later checkpoint (ceiling;
        nan where there is one seed), and (jaccard - null) / (ceiling - null).
    """
    rows: list[dict[str, Any]] = []
    ceilings: dict[tuple[str, str], Array] = {}
    for run, checkpoints in runs.items():
        for before, after in combinations({BASE: base, **checkpoints}.items(), 2):
            key = (run.condition, after[0])
            if key not in ceilings:
                ceilings[key] = _ceiling(runs, *key)
            measured = {
                "jaccard": _jaccards(before[1], after[1]),
                "null": _nulls(before[1], after[1], settings.random_sets, seed),
                "ceiling": ceilings[key],
            }
            pair = {"from": before[0], "to": after[0]}
            described = {"run": run.name, "condition": run.condition, "seed": run.seed, **pair}
            means = _by_role(measured, roles, sorted(settings.thresholds))
            rows.extend({**described, **row} for row in means)
    return pd.DataFrame(rows)


def _by_role(
    measured: Mapping[str, Array], roles: Sequence[str], thresholds: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """Means over the prompts of each role; each measure is ``[n_prompts, n_thresholds]``."""
    for role in dict.fromkeys(roles):
        of_role = np.array(roles) == role
        means = {name: values[of_role].mean(0) for name, values in measured.items()}
        for index, threshold in enumerate(thresholds):
            row = {name: float(values[index]) for name, values in means.items()}
            corrected = chance_corrected(**row)
            yield {"role": role, "threshold": threshold, **row, "corrected": corrected}


def _ceiling(
    runs: Mapping[Run, Mapping[str, SetsOfPrompts]], condition: str, checkpoint: str
) -> Array:
    """Mean over all pairs of seeds ``[n_prompts, n_thresholds]``; nan where there is one seed."""
    seeds = [sets[checkpoint] for run, sets in runs.items() if run.condition == condition]
    if len(seeds) < 2:
        return np.full((len(seeds[0]), seeds[0][0].n_thresholds), np.nan)
    return np.mean([_jaccards(a, b) for a, b in combinations(seeds, 2)], axis=0)


def _jaccards(a: SetsOfPrompts, b: SetsOfPrompts) -> Array:
    """``[n_prompts, n_thresholds]``."""
    return np.stack([set_jaccard(one, other) for one, other in zip(a, b, strict=True)])


def _nulls(a: SetsOfPrompts, b: SetsOfPrompts, n_random_sets: int, seed: int) -> Array:
    """``[n_prompts, n_thresholds]``."""
    sizes_a, sizes_b = (np.stack([sets.sizes for sets in side]) for side in (a, b))
    n_per_layer = np.array([sets.n_per_layer for sets in a])
    return random_jaccard(sizes_a, sizes_b, n_per_layer, n_random_sets, seed)

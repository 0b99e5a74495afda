"""Circuits as sets of nodes: the strongest that together hold a share of the whole |effect|.

How much two such sets overlap means nothing without what chance gives (random sets of the same
size in every layer) and what can be had at best (two seeds of one condition).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitdrift.comparison.distance import Array
from circuitdrift.core.study import BASE, Run

if TYPE_CHECKING:
    from circuitdrift.params import Compare

Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class NodeSets:
    """The node sets of one circuit at every threshold; each lies in the next.

    Attributes:
        levels: of each node the index of the first threshold whose set holds it, ``n_thresholds``
            where none does ``[n_layers, n_positions, d_mlp]``, uint8.
    """

    levels: NDArray[np.uint8]
    n_thresholds: int

    @cached_property
    def sizes(self) -> Counts:
        """Nodes of each set by layer ``[n_thresholds, n_layers]``."""
        rows = self.levels.reshape(len(self.levels), -1)
        return np.array(
            [np.count_nonzero(rows <= level, axis=1) for level in range(self.n_thresholds)]
        )

    @property
    def n_per_layer(self) -> int:
        """The nodes of a layer, whether in a set or not."""
        return self.levels[0].size


def node_sets(effects: Array, thresholds: Sequence[float]) -> NodeSets:
    """The smallest sets that hold the shares ``thresholds`` of the total |effect|.

    Of equal nodes that with the lower index comes first. Where all effects are 0 the sets are
    empty.

    Args:
        effects: ``[n_layers, n_positions, d_mlp]``.
        thresholds: ascending shares, 0..1.

    Raises:
        ValueError: if the thresholds do not ascend.
    """
    if list(thresholds) != sorted(set(thresholds)):
        raise ValueError(f"thresholds must ascend, got {list(thresholds)}")
    magnitude = np.abs(effects).ravel()
    # Sorting the values alone is several times faster than sorting their indices.
    descending = np.sort(magnitude)[::-1]
    held = np.cumsum(descending.astype(np.float64))
    if held[-1] == 0:
        return NodeSets(np.full(effects.shape, len(thresholds), dtype=np.uint8), len(thresholds))
    levels = np.zeros(magnitude.size, dtype=np.uint8)
    for share in thresholds:
        size = int(np.searchsorted(held, share * held[-1])) + 1
        smallest = descending[size - 1]
        levels += magnitude < smallest
        n_larger = np.count_nonzero(magnitude > smallest)
        levels[np.flatnonzero(magnitude == smallest)[size - n_larger :]] += 1
    return NodeSets(levels.reshape(effects.shape), len(thresholds))


def in_either(a: NodeSets, b: NodeSets) -> NDArray[np.intp]:
    """The nodes in the largest set of either circuit, as flat indices ``[n]``."""
    return np.flatnonzero(np.minimum(a.levels, b.levels) < a.n_thresholds)


def set_jaccard(a: NodeSets, b: NodeSets) -> Array:
    """Jaccard index of two circuits' sets ``[n_thresholds]``; 1 where both are empty."""
    later = np.maximum(a.levels, b.levels)
    shared = np.array([np.count_nonzero(later <= level) for level in range(a.n_thresholds)])
    return _jaccard(shared, a.sizes.sum(-1) + b.sizes.sum(-1))


def random_jaccard(a: Counts, b: Counts, n_per_layer: Counts, n_sets: int, seed: int) -> Array:
    """Mean Jaccard index of random sets with as many nodes in every layer as two circuits have.

    How many nodes two random sets of a layer share is hypergeometric, so that is drawn and no set
    is built.

    Args:
        a, b: sizes by layer ``[..., n_thresholds, n_layers]``.
        n_per_layer: nodes of a layer ``[...]``.
        n_sets: pairs of random sets drawn for each comparison.

    Returns:
        ``[..., n_thresholds]``.
    """
    nodes = n_per_layer[..., None, None]
    drawn = np.random.default_rng(seed).hypergeometric(a, nodes - a, b, size=(n_sets, *a.shape))
    return _jaccard(drawn.sum(-1), (a + b).sum(-1)).mean(0)


def chance_corrected(jaccard: float, null: float, ceiling: float) -> float:
    """(J - null) / (ceiling - null): 0 is chance, 1 what two seeds of one condition share.

    nan where there is no ceiling, or none above chance to tell from it.
    """
    if not ceiling > null:
        return float("nan")
    return (jaccard - null) / (ceiling - null)


def _jaccard(shared: Counts, total: Counts) -> Array:
    """Of sets with ``shared`` common nodes whose sizes add up to ``total``."""
    union = total - shared
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0)


SetsOfPrompts = Sequence[NodeSets]


def overlap_rows(
    base: SetsOfPrompts,
    runs: Mapping[Run, Mapping[str, SetsOfPrompts]],
    roles: Sequence[str],
    settings: Compare,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Node overlap of every two of a run's checkpoints, the base among them.

    Args:
        runs: by run and checkpoint, the earliest first; of the same prompts.
        seed: of the random sets.

    Yields:
        a row per run, pair, role and threshold: mean Jaccard index over the prompts, that of
        random sets (null), that of two seeds of the condition at the later checkpoint (ceiling;
        nan where there is one seed), and (jaccard - null) / (ceiling - null).
    """
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
            named = {"run": run.name, **vars(run), "from": before[0], "to": after[0]}
            for row in _by_role(measured, roles, sorted(settings.thresholds)):
                yield {**named, **row}


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

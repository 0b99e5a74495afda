"""Circuits as sets of nodes: the strongest that together hold a share of the whole |effect|.

How much two such sets overlap means nothing without what chance gives (random sets of the same
size in every layer) and what can be had at best (two seeds of one condition).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitdrift.comparison import Array

Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class NodeSets:
    """The node sets of one circuit at every threshold; each lies in the next.

    Attributes:
        levels: of each node the index of the first threshold whose set holds it, ``n_thresholds``
            where none does ``[n_layers, n_positions, d_mlp]``, uint8.
        n_thresholds: how many there are, in ascending order.
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
    held = np.cumsum(descending, dtype=np.float64)
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


def in_either(a: NodeSets, b: NodeSets) -> NDArray[np.bool_]:
    """The nodes in the largest set of either circuit ``[n_layers, n_positions, d_mlp]``."""
    return np.minimum(a.levels, b.levels) < a.n_thresholds


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

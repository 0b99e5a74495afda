"""How far two circuits of one prompt lie apart: the effects of all nodes, and their graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitdrift.circuits.circuit import CircuitGraph, NodeKind

Array = NDArray[np.floating[Any]]


def weighted_jaccard(a: Array, b: Array) -> float:
    """Sum of minima over sum of maxima of two non-negative arrays; 1 where both are zero.

    Raises:
        ValueError: on shapes that differ or values below zero.
    """
    if a.shape != b.shape:
        raise ValueError(f"arrays of one shape are compared, got {a.shape} and {b.shape}")
    if (a < 0).any() or (b < 0).any():
        raise ValueError("weighted Jaccard takes non-negative values")
    union = np.maximum(a, b).sum()
    return float(np.minimum(a, b).sum() / union) if union > 0 else 1.0


@dataclass(frozen=True)
class Change:
    """What moved from one circuit to another, summed over neurons, in logits.

    Each is ``[n_layers, n_positions]``, float64.
    """

    before: Array  # sums of |effect|
    after: Array
    grown: Array  # sums of how far |effect| moved, up or down
    moved: Array  # sums of how far the signed effects moved

    @property
    def gained(self) -> Array:
        """Sum of the rises of |effect|; what rose and what fell add up to ``grown``."""
        return np.maximum(self.grown + self.after - self.before, 0) / 2

    @property
    def lost(self) -> Array:
        """Sum of the falls of |effect|."""
        return np.maximum(self.grown + self.before - self.after, 0) / 2

    @property
    def drift(self) -> float:
        """1 - weighted Jaccard of |effect|: 0 where nothing moved, 1 where nothing is shared."""
        return _jaccard_distance(self.before, self.after, self.grown)

    @property
    def signed_drift(self) -> float:
        """As drift, but an effect that changes its sign shares nothing with what it was.

        It is the drift of positive and negative parts taken as features of their own, and the
        parts of an effect move as far together as the effect.
        """
        return _jaccard_distance(self.before, self.after, self.moved)


def effect_change(a: Array, b: Array) -> Change:
    """Change from effects ``a`` to effects ``b``, both ``[n_layers, n_positions, d_mlp]``.

    Raises:
        ValueError: on shapes that differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"effects of one shape are compared, got {a.shape} and {b.shape}")
    before, after = np.abs(a), np.abs(b)
    return Change(
        before=_over_neurons(before),
        after=_over_neurons(after),
        grown=_over_neurons(np.abs(after - before)),
        moved=_over_neurons(np.abs(b - a)),
    )


def _over_neurons(values: Array) -> Array:
    return values.sum(-1).astype(np.float64)


def _jaccard_distance(before: Array, after: Array, distance: Array) -> float:
    """1 - sum of minima over sum of maxima, from the sums of two arrays and of |difference|.

    Minima add up to (before + after - distance) / 2 and maxima to (before + after + distance) / 2.
    """
    total = float(before.sum() + after.sum() + distance.sum())
    return 2 * float(distance.sum()) / total if total > 0 else 0.0


def share_drift(a: Array, b: Array) -> float:
    """½ Σ| |a|/Σ|a| − |b|/Σ|b| |: how far shares of |effect| moved, 0..1, whatever their total.

    The total variation distance; the second round's drift (docs/preregistration.md).

    Raises:
        ValueError: on shapes that differ, or effects that are all 0 and have no shares.
    """
    if a.shape != b.shape:
        raise ValueError(f"effects of one shape are compared, got {a.shape} and {b.shape}")
    shares = [np.abs(effects) / total for effects, total in zip((a, b), _totals(a, b), strict=True)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def gain(a: Array, b: Array) -> float:
    """ln(Σ|b| / Σ|a|): how the total of |effect| grew.

    Raises:
        ValueError: where all effects of a circuit are 0.
    """
    before, after = _totals(a, b)
    return float(np.log(after / before))


def _totals(*circuits: Array) -> list[float]:
    totals = [float(np.abs(effects).sum(dtype=np.float64)) for effects in circuits]
    if not all(totals):
        raise ValueError("the effects of a circuit are all 0: there are no shares of them")
    return totals


def consistency(a: Array, b: Array) -> float:
    """Cosine of two signed changes of effect over all nodes; nan where one did not change."""
    lengths = [np.sqrt(np.square(change, dtype=np.float64).sum()) for change in (a, b)]
    product = float(np.vdot(a.astype(np.float64), b))
    return product / float(lengths[0] * lengths[1]) if all(lengths) else float("nan")


Keys = NDArray[np.int64]

# Room for layers, positions and units (neurons or token ids) in the one number that is a node's
# key: 2^10 layers, 2^16 positions, 2^24 units.
_BITS = (10, 16, 24)

_SCORES = ("replacement", "completeness", "error_mass")
_MEASURES = (
    "influence_drift",
    "node_jaccard",
    "nodes_added",
    "nodes_removed",
    "edge_jaccard",
    "edges_added",
    "edges_removed",
)


def compare_graphs(a: CircuitGraph | None, b: CircuitGraph | None) -> dict[str, float | None]:
    """Every measure of how graph ``a`` became graph ``b``; None throughout where one is missing.

    Nodes are the kept features. Influence drift is 1 - weighted Jaccard of their influence.
    """
    if a is None or b is None:
        scores = [f"{name}_{side}" for side in ("from", "to") for name in _SCORES]
        return dict.fromkeys((*_MEASURES, *scores))
    features_a, features_b = _feature_keys(a), _feature_keys(b)
    influence = _on_union(features_a, features_b, _feature_influence(a), _feature_influence(b))
    return {
        "influence_drift": 1 - weighted_jaccard(*influence),
        **_overlap("node", features_a, features_b),
        **_overlap("edge", *_edge_keys(a, b)),
        **{f"{name}_from": getattr(a.scores, name) for name in _SCORES},
        **{f"{name}_to": getattr(b.scores, name) for name in _SCORES},
    }


def _overlap(name: str, a: Keys, b: Keys) -> dict[str, float]:
    """Jaccard index of two sets, and what the second gained and lost."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    union = a.size + b.size - shared
    return {
        f"{name}_jaccard": shared / union if union else 1.0,
        f"{name}s_added": b.size - shared,
        f"{name}s_removed": a.size - shared,
    }


def _node_keys(graph: CircuitGraph) -> Keys:
    """One number for each node ``[n_nodes]``; what a kind of node lacks is -1 there."""
    columns: NDArray[Any] = graph.nodes.astype(np.int64)
    key: Keys = columns[:, 0]
    for column, bits in zip(columns[:, 1:].T, _BITS, strict=True):
        assert column.size == 0 or column.max() + 1 < 2**bits, "a node's key needs more bits"
        key = (key << bits) | (column + 1)
    return key


def _is_feature(graph: CircuitGraph) -> NDArray[np.bool_]:
    return graph.nodes[:, 0] == NodeKind.FEATURE


def _feature_keys(graph: CircuitGraph) -> Keys:
    return _node_keys(graph)[_is_feature(graph)]


def _feature_influence(graph: CircuitGraph) -> Array:
    return graph.influence[_is_feature(graph)].astype(np.float64)


def _edge_keys(a: CircuitGraph, b: CircuitGraph) -> tuple[Keys, Keys]:
    """One number for each edge of either graph; equal edges have equal numbers."""
    nodes = np.union1d(_node_keys(a), _node_keys(b))

    def keys(graph: CircuitGraph) -> Keys:
        target, source = np.searchsorted(nodes, _node_keys(graph))[graph.edges].T
        return target.astype(np.int64) * nodes.size + source

    return keys(a), keys(b)


def _on_union(keys_a: Keys, keys_b: Keys, a: Array, b: Array) -> tuple[Array, Array]:
    """Two lists of values on the union of their keys; what one lacks is 0."""
    union = np.union1d(keys_a, keys_b)

    def spread(keys: Keys, values: Array) -> Array:
        spread_out = np.zeros(union.size)
        spread_out[np.searchsorted(union, keys)] = values
        return spread_out

    return spread(keys_a, a), spread(keys_b, b)

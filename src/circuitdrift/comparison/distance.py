"""How far two circuits of one prompt lie apart: their effects, and their graphs."""

from __future__ import annotations

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


def total_variation(a: Array, b: Array) -> float:
    """½ Σ|a − b| of two lists of shares: how much of one lies elsewhere in the other, 0..1.

    Of shares of |effect| it is the drift of docs/preregistration.md, blind to their total.

    Raises:
        ValueError: on shapes that differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"shares of one shape are compared, got {a.shape} and {b.shape}")
    return float(np.abs(a - b).sum() / 2)


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


def compare_graphs(a: CircuitGraph, b: CircuitGraph) -> dict[str, float]:
    """Every measure of how graph ``a`` became graph ``b``.

    Nodes are the kept features. Influence drift is 1 - weighted Jaccard of their influence.
    """
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

"""Comparison of two attribution graphs of one prompt: their nodes, edges and influence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitdrift.comparison import Array, weighted_jaccard
from circuitdrift.graph import CircuitGraph, NodeKind

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
    columns: NDArray[Any] = graph.nodes.numpy().astype(np.int64)
    key: Keys = columns[:, 0]
    for column, bits in zip(columns[:, 1:].T, _BITS, strict=True):
        assert column.size == 0 or column.max() + 1 < 2**bits, "a node's key needs more bits"
        key = (key << bits) | (column + 1)
    return key


def _is_feature(graph: CircuitGraph) -> NDArray[np.bool_]:
    return graph.nodes[:, 0].numpy() == NodeKind.FEATURE


def _feature_keys(graph: CircuitGraph) -> Keys:
    return _node_keys(graph)[_is_feature(graph)]


def _feature_influence(graph: CircuitGraph) -> Array:
    return graph.influence.numpy()[_is_feature(graph)].astype(np.float64)


def _edge_keys(a: CircuitGraph, b: CircuitGraph) -> tuple[Keys, Keys]:
    """One number for each edge of either graph; equal edges have equal numbers."""
    nodes = np.union1d(_node_keys(a), _node_keys(b))

    def keys(graph: CircuitGraph) -> Keys:
        target, source = np.searchsorted(nodes, _node_keys(graph))[graph.edges.numpy()].T
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

"""How far two circuits lie apart, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circuit_samples import GRAPH
from circuitdrift.circuits.circuit import NodeKind
from circuitdrift.comparison.distance import (
    compare_graphs,
    consistency,
    total_variation,
    weighted_jaccard,
)


def test_weighted_jaccard_worked_by_hand() -> None:
    # minima 1 + 0 + 2, maxima 2 + 3 + 2.
    assert weighted_jaccard(np.array([1.0, 0, 2]), np.array([2.0, 3, 2])) == pytest.approx(3 / 7)
    assert weighted_jaccard(np.zeros(3), np.zeros(3)) == 1
    with pytest.raises(ValueError, match="non-negative"):
        weighted_jaccard(np.array([-1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="one shape"):
        weighted_jaccard(np.zeros(2), np.zeros(3))


def test_total_variation_worked_by_hand() -> None:
    assert total_variation(np.array([0.25, 0.75]), np.array([0.5, 0.5])) == pytest.approx(0.25)
    assert total_variation(np.array([1.0, 0]), np.array([0, 1.0])) == 1
    with pytest.raises(ValueError, match="one shape"):
        total_variation(np.zeros(3), np.zeros(2))


def test_consistency_is_the_cosine_of_two_changes() -> None:
    a, b = np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]])
    assert consistency(a, b) == pytest.approx(24 / 25)
    assert consistency(a, -2 * a) == pytest.approx(-1)
    assert np.isnan(consistency(a, np.zeros_like(a)))


def test_a_graph_compared_with_itself() -> None:
    row = compare_graphs(GRAPH, GRAPH)
    assert (row["influence_drift"], row["node_jaccard"], row["edge_jaccard"]) == (0, 1, 1)
    assert [row[name] for name in ("nodes_added", "nodes_removed", "edges_added")] == [0, 0, 0]
    assert row["replacement_from"] == row["replacement_to"] == 0.75


def test_another_graph_compared_by_hand() -> None:
    # L0/P0/F2 gives way to L1/P0/F2, which comes after L0/P1/F1.
    features = [[NodeKind.FEATURE, 0, 1, 1], [NodeKind.FEATURE, 1, 0, 2]]
    after = replace(
        GRAPH,
        nodes=np.concatenate([features, GRAPH.nodes[2:]]).astype(np.int32),
        influence=np.array([0.75, 0.25, 0.5, 0.5, 0]),
        edges=np.array([[0, 3], [1, 2], [4, 0]]),
    )
    row = compare_graphs(GRAPH, after)
    # Features {P0/F2, P1/F1} and {P1/F1, L1/P0/F2}.
    assert row["node_jaccard"] == pytest.approx(1 / 3)
    assert (row["nodes_added"], row["nodes_removed"]) == (1, 1)
    # Kept: token 6 -> P1/F1 and P1/F1 -> target; lost: two; new: token 5 -> L1/P0/F2.
    assert row["edge_jaccard"] == pytest.approx(2 / 5)
    assert (row["edges_added"], row["edges_removed"]) == (1, 2)
    # Influences 0.5, 1, 0 and 0, 0.75, 0.25: minima 0.75, maxima 1.75.
    assert row["influence_drift"] == pytest.approx(1 - 0.75 / 1.75)

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuit_samples import circuit
from circuitdrift.graph import CircuitGraph, NodeKind
from circuitdrift.graph_pairs import compare_graphs


def graph() -> CircuitGraph:
    found = circuit("a").graph
    assert found is not None
    return found


def test_a_graph_compared_with_itself() -> None:
    row = compare_graphs(graph(), graph())
    assert (row["influence_drift"], row["node_jaccard"], row["edge_jaccard"]) == (0, 1, 1)
    assert [row[name] for name in ("nodes_added", "nodes_removed", "edges_added")] == [0, 0, 0]
    assert row["replacement_from"] == row["replacement_to"] == 0.75


def test_another_graph_compared_by_hand() -> None:
    before = graph()
    # L0/P0/F2 gives way to L1/P0/F2, which comes after L0/P1/F1.
    after = replace(
        before,
        nodes=torch.tensor(
            [
                [NodeKind.FEATURE, 0, 1, 1],
                [NodeKind.FEATURE, 1, 0, 2],
                *before.nodes[2:].tolist(),
            ]
        ).int(),
        influence=torch.tensor([0.75, 0.25, 0.5, 0.5, 0]),
        edges=torch.tensor([[0, 3], [1, 2], [4, 0]]).int(),
    )
    row = compare_graphs(before, after)
    # Features {P0/F2, P1/F1} and {P1/F1, L1/P0/F2}.
    assert (row["node_jaccard"], row["nodes_added"], row["nodes_removed"]) == (
        pytest.approx(1 / 3),
        1,
        1,
    )
    # Kept: token 6 -> P1/F1 and P1/F1 -> target; lost: two; new: token 5 -> L1/P0/F2.
    assert (row["edge_jaccard"], row["edges_added"], row["edges_removed"]) == (
        pytest.approx(2 / 5),
        1,
        2,
    )
    # Influences 0.5, 1, 0 and 0, 0.75, 0.25: minima 0.75, maxima 1.75.
    assert row["influence_drift"] == pytest.approx(1 - 0.75 / 1.75)


def test_where_one_graph_is_missing_every_measure_is() -> None:
    whole = compare_graphs(graph(), graph())
    assert compare_graphs(graph(), None) == dict.fromkeys(whole)
    assert compare_graphs(None, graph()) == dict.fromkeys(whole)

from __future__ import annotations

import torch

from circuit_samples import circuit
from circuitdrift.graph import NodeKind, node_table


def test_nodes_stand_in_circuit_tracers_order() -> None:
    table = node_table(torch.tensor([[0, 1, 7], [1, 0, 3]]), n_layers=2, tokens=[11, 12])
    assert table.tolist() == [
        [NodeKind.FEATURE, 0, 1, 7],
        [NodeKind.FEATURE, 1, 0, 3],
        [NodeKind.ERROR, 0, 0, -1],
        [NodeKind.ERROR, 0, 1, -1],
        [NodeKind.ERROR, 1, 0, -1],
        [NodeKind.ERROR, 1, 1, -1],
        [NodeKind.TOKEN, -1, 0, 11],
        [NodeKind.TOKEN, -1, 1, 12],
        [NodeKind.TARGET, -1, 1, -1],
    ]


def test_sets_of_nodes_and_edges_are_named_by_place() -> None:
    graph = circuit("a", seed=0).graph
    assert graph.node_set() == {(0, 0, 2), (0, 1, 1)}
    target, token = (NodeKind.TARGET, -1, 1, -1), (NodeKind.TOKEN, -1, 0, 5)
    assert (target, (NodeKind.FEATURE, 0, 1, 1)) in graph.edge_set()
    assert ((NodeKind.FEATURE, 0, 0, 2), token) in graph.edge_set()

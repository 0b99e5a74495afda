from __future__ import annotations

import torch

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

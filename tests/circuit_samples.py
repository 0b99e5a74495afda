"""Small circuits made by hand, for the tests of what is done with circuits."""

from __future__ import annotations

import torch
from torch import Tensor

from circuitdrift.graph import Circuit, CircuitGraph, NodeKind
from circuitdrift.influence import Scores


def circuit(prompt: str, seed: int = 0, effects: Tensor | None = None) -> Circuit:
    """Two layers, two tokens, three neurons; two features, two tokens and the target in the graph.

    The target hears the feature L0/P1/F1, which hears L0/P0/F2 and the second token; L0/P0/F2
    hears the first token.
    """
    generator = torch.Generator().manual_seed(seed)
    if effects is None:
        effects = torch.randn(2, 2, 3, generator=generator)
    return Circuit(
        prompt=prompt,
        tokens=(5, 6),
        segments=("start", "last"),
        answer=1,
        others=(2, 3),
        value=0.5 + seed,
        effects=effects,
        token_effects=torch.tensor([0.25, 0.25 + seed]),
        graph=CircuitGraph(
            nodes=torch.tensor(
                [
                    [NodeKind.FEATURE, 0, 0, 2],
                    [NodeKind.FEATURE, 0, 1, 1],
                    [NodeKind.TOKEN, -1, 0, 5],
                    [NodeKind.TOKEN, -1, 1, 6],
                    [NodeKind.TARGET, -1, 1, -1],
                ]
            ).int(),
            influence=torch.tensor([0.5, 1.0, 0.5, 0.5, 0]),
            activation=torch.tensor([2.0, -1, 0, 0, 0]),
            edges=torch.tensor([[0, 2], [1, 0], [1, 3], [4, 1]]).int(),
            weights=torch.tensor([2.0, 0.5, -0.5, 1]),
            scores=Scores(replacement=0.75, completeness=0.875, error_mass=0.125),
        ),
    )

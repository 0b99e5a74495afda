"""The circuit of one prompt at one checkpoint: nodes, edges and effects; the owner of node order.

Nodes stand in circuit-tracer's order: expanded features by (layer, position, neuron), errors by
(layer, position), tokens by position, then the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from circuitdrift.influence import Scores

_NONE = -1


class NodeKind(IntEnum):
    FEATURE = 0
    ERROR = 1
    TOKEN = 2
    TARGET = 3


def node_table(expanded: Tensor, n_layers: int, tokens: list[int]) -> Tensor:
    """All nodes of a graph in order: (kind, layer, position, unit) ``[n_nodes, 4]``, int32.

    ``unit`` is the neuron of a feature and the token id of a token; what a kind lacks is -1.

    Args:
        expanded: (layer, position, neuron), ascending ``[n_features, 3]``.
    """
    n_positions = len(tokens)
    layers = torch.arange(n_layers).repeat_interleave(n_positions)
    positions = torch.arange(n_positions)

    def rows(kind: NodeKind, layer: Tensor, position: Tensor, unit: Tensor) -> Tensor:
        columns = (torch.full_like(position, kind), layer, position, unit)
        return torch.stack(columns, dim=1).int()

    none = torch.full_like(positions, _NONE)
    return torch.cat(
        [
            rows(NodeKind.FEATURE, *expanded.T),
            rows(
                NodeKind.ERROR,
                layers,
                positions.repeat(n_layers),
                torch.full_like(layers, _NONE),
            ),
            rows(NodeKind.TOKEN, none, positions, torch.tensor(tokens)),
            rows(NodeKind.TARGET, none[:1], positions[-1:], none[:1]),
        ]
    )


@dataclass(frozen=True)
class CircuitGraph:
    """A pruned attribution graph.

    Attributes:
        nodes: (kind, layer, position, unit) of the kept nodes, in order ``[n_nodes, 4]``, int32.
        influence: of each, computed before pruning ``[n_nodes]``.
        activation: of the features, 0 elsewhere ``[n_nodes]``.
        edges: (target, source) as indices into ``nodes``, ascending ``[n_edges, 2]``, int32.
        weights: the direct effects along the edges ``[n_edges]``.
        scores: of the whole graph, before pruning.
    """

    nodes: Tensor
    influence: Tensor
    activation: Tensor
    edges: Tensor
    weights: Tensor
    scores: Scores


@dataclass(frozen=True)
class Circuit:
    """All that attribution says of one prompt at one checkpoint.

    Attributes:
        prompt: the prompt's id.
        tokens: its token ids.
        segments: the part of the prompt that each token belongs to.
        answer, others: the target's token ids.
        value: of the target, in logits.
        effects: of every neuron at every position ``[n_layers, n_positions, d_mlp]``, logits.
        token_effects: of the embeddings ``[n_positions]``, logits; they sum to ``value``.
        graph: None where edges were not asked for.
    """

    prompt: str
    tokens: tuple[int, ...]
    segments: tuple[str, ...]
    answer: int
    others: tuple[int, ...]
    value: float
    effects: Tensor
    token_effects: Tensor
    graph: CircuitGraph | None

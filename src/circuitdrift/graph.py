"""The circuit of one prompt at one checkpoint: nodes, edges and effects; the owner of node order.

Nodes stand in circuit-tracer's order: expanded features by (layer, position, neuron), errors by
(layer, position), tokens by position, then the target.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from circuitdrift.artifacts import replacing
from circuitdrift.influence import Scores

_METADATA = "circuits"
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

    def node_set(self) -> set[tuple[int, ...]]:
        """The kept features as (layer, position, neuron)."""
        features = self.nodes[self.nodes[:, 0] == NodeKind.FEATURE, 1:]
        return {tuple(row) for row in features.tolist()}

    def edge_set(self) -> set[tuple[tuple[int, ...], ...]]:
        """The kept edges as pairs of nodes, target first."""
        names = [tuple(row) for row in self.nodes.tolist()]
        return {(names[target], names[source]) for target, source in self.edges.tolist()}


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
    """

    prompt: str
    tokens: tuple[int, ...]
    segments: tuple[str, ...]
    answer: int
    others: tuple[int, ...]
    value: float
    effects: Tensor
    token_effects: Tensor
    graph: CircuitGraph


_TENSORS_OF_GRAPH = ("nodes", "influence", "activation", "edges", "weights")


def save_circuits(path: Path, circuits: list[Circuit]) -> None:
    """Write circuits as one safetensors file, byte-identical for equal circuits.

    Effects are halved to float16 after scaling by a power of two that takes their largest
    magnitude to 2^15: relative error at most 2^-11 down to 2^-29 of the largest.
    """
    tensors: dict[str, Tensor] = {}
    described = []
    for index, circuit in enumerate(circuits):
        half, exponent = halve(circuit.effects)
        tensors[f"{index:04d}.effects"] = half
        tensors[f"{index:04d}.token_effects"] = circuit.token_effects.contiguous()
        for name in _TENSORS_OF_GRAPH:
            tensors[f"{index:04d}.{name}"] = getattr(circuit.graph, name).contiguous()
        described.append(
            {
                "prompt": circuit.prompt,
                "tokens": circuit.tokens,
                "segments": circuit.segments,
                "answer": circuit.answer,
                "others": circuit.others,
                "value": circuit.value,
                "effects_exponent": exponent,
                "scores": asdict(circuit.graph.scores),
            }
        )
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={_METADATA: json.dumps(described, sort_keys=True)})


def load_circuits(path: Path) -> list[Circuit]:
    """Read what :func:`save_circuits` wrote.

    Raises:
        ValueError: if the file holds no circuits.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if _METADATA not in metadata:
            raise ValueError(f"{path} holds no circuits")
        described = json.loads(metadata[_METADATA])
        return [_circuit(file, index, entry) for index, entry in enumerate(described)]


def _circuit(file: Any, index: int, entry: dict[str, Any]) -> Circuit:
    tensor = {
        name: file.get_tensor(f"{index:04d}.{name}")
        for name in ("effects", "token_effects", *_TENSORS_OF_GRAPH)
    }
    graph = CircuitGraph(
        **{name: tensor[name] for name in _TENSORS_OF_GRAPH}, scores=Scores(**entry["scores"])
    )
    return Circuit(
        prompt=entry["prompt"],
        tokens=tuple(entry["tokens"]),
        segments=tuple(entry["segments"]),
        answer=entry["answer"],
        others=tuple(entry["others"]),
        value=entry["value"],
        effects=tensor["effects"].float() * 2.0 ** entry["effects_exponent"],
        token_effects=tensor["token_effects"],
        graph=graph,
    )


_LARGEST_HALF_EXPONENT = 15


def halve(x: Tensor) -> tuple[Tensor, int]:
    """``x`` as float16 times a power of two: returns the float16 tensor and the exponent.

    Raises:
        ValueError: if ``x`` is not finite.
    """
    largest = x.abs().max().item()
    if not torch.isfinite(x).all():
        raise ValueError("effects are not finite")
    if largest == 0:
        return x.half(), 0
    exponent = int(torch.tensor(largest).log2().floor()) + 1 - _LARGEST_HALF_EXPONENT
    return (x * 2.0**-exponent).half(), exponent

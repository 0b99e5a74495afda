"""The circuit of one prompt at one checkpoint: nodes, edges and effects; the owner of node order.

Nodes stand in circuit-tracer's order: expanded features by (layer, position, neuron), errors by
(layer, position), tokens by position, then the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdrift.core.prompts import TracedPrompt

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


class NodeKind(IntEnum):
    FEATURE = 0
    ERROR = 1
    TOKEN = 2
    TARGET = 3


def node_table(expanded: ArrayLike, n_layers: int, tokens: Sequence[int]) -> Ints:
    """All nodes of a graph in order: (kind, layer, position, unit) ``[n_nodes, 4]``.

    ``unit`` is the neuron of a feature and the token id of a token; what a kind lacks is -1.
    ``expanded`` is (layer, position, neuron), ascending ``[n_features, 3]``.
    """
    positions = range(len(tokens))
    inner = [
        *(
            (NodeKind.ERROR, layer, position, -1)
            for layer in range(n_layers)
            for position in positions
        ),
        *((NodeKind.TOKEN, -1, position, token) for position, token in enumerate(tokens)),
        (NodeKind.TARGET, -1, len(tokens) - 1, -1),
    ]
    features = np.insert(np.asarray(expanded, dtype=np.int32), 0, NodeKind.FEATURE, axis=1)
    return np.concatenate([features, np.array(inner, dtype=np.int32)])


@dataclass(frozen=True)
class Scores:
    """How much of a graph is explained by features, each from 0 to 1.

    Attributes:
        replacement: token influence over token and error influence.
        completeness: share of the nodes' inputs, weighted by influence, that are not errors.
        error_mass: error nodes' share of all sources' influence.
    """

    replacement: float
    completeness: float
    error_mass: float


@dataclass(frozen=True)
class CircuitGraph:
    """A pruned attribution graph.

    Attributes:
        nodes: (kind, layer, position, unit) of the kept nodes, in order ``[n_nodes, 4]``.
        influence: of each, computed before pruning ``[n_nodes]``.
        activation: of the features, 0 elsewhere ``[n_nodes]``.
        edges: (target, source) as indices into ``nodes``, ascending ``[n_edges, 2]``.
        weights: the direct effects along the edges ``[n_edges]``.
        scores: of the whole graph, before pruning.
    """

    nodes: Ints
    influence: Floats
    activation: Floats
    edges: Ints
    weights: Floats
    scores: Scores


# Where a node stands in its prompt, as far as prompts of one word can be compared.
ROLES = ("word", "last", "other")


def node_roles(segments: Sequence[str]) -> list[str]:
    """For each token of a prompt one of ROLES: the word's last token, the prompt's last, other."""
    roles = ["other"] * len(segments)
    if "word" in segments:
        roles[len(segments) - 1 - segments[::-1].index("word")] = "word"
    roles[-1] = "last"
    return roles


@dataclass(frozen=True)
class Circuit:
    """All that attribution says of one prompt at one checkpoint.

    Attributes:
        values: of the targets that are stored, in logits ``[n_targets]``.
        effects: of every neuron at every position ``[n_targets, n_layers, n_positions, d_mlp]``,
            logits.
        token_effects: of the embeddings ``[n_targets, n_positions]``, logits; a target's sum to
            its value.
        graph: of the target that `mapped` teaches; None where edges were not asked for.
    """

    prompt: TracedPrompt
    values: Floats
    effects: Floats
    token_effects: Floats
    graph: CircuitGraph | None

    @property
    def all_effects(self) -> Floats:
        """Effects on the target of every answer ``[n_answers, ...]``, of a control on its one."""
        if self.prompt.role == "control":
            return self.effects
        return np.concatenate([self.effects, -self.effects.sum(0, keepdims=True)])

    @property
    def role_effects(self) -> Floats:
        """:attr:`all_effects`, summed over the positions of each of ROLES
        ``[n_answers, n_layers, n_roles, d_mlp]``."""
        roles = node_roles(self.prompt.segments)
        belongs = np.array([[own == role for own in roles] for role in ROLES], dtype=np.float32)
        return np.asarray(belongs @ self.all_effects, dtype=np.float32)

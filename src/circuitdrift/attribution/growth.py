"""The neurons that a graph expands, and its edges before pruning.

Chosen by influence, a graph grows in rounds among the active features, as circuit-tracer's does;
chosen by effect, the strongest neurons are expanded at once. What is never expanded is folded into
the error of its layer and position, so that rows still sum to activations; or dropped, as
circuit-tracer drops it, to hold one against the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circuitdrift.attribution.edges import (
    Components,
    adjacency,
    components_of,
    edges_into,
    feature_rows,
    target_rows,
)
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.neurons import NeuronBasis

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from circuitdrift.params import Attribution

# In which a graph grows by influence. More cost more and hardly choose better (selection.csv).
ROUNDS = 4


@dataclass(frozen=True)
class DenseGraph:
    """A graph before it is pruned.

    Attributes:
        expanded: (layer, position, neuron), ascending ``[n_features, 3]``.
        activations: of these ``[n_features]``.
        A: direct effects, targets by sources ``[n_nodes, n_nodes]``, in the order of
            :func:`circuitdrift.circuits.circuit.node_table`.
    """

    expanded: Tensor
    activations: Tensor
    A: Tensor


Engine = Callable[[LinearModel, Tensor, Tensor], DenseGraph]
"""The model frozen on a prompt, the target's direction ``[d_model]``, and the effects of all
neurons ``[n_layers, n_positions, d_mlp]``."""


def engine_for(model: PreTrainedModel, settings: Attribution) -> Engine:
    """The engine that ``attribution.engine`` names, ready to attribute prompts on ``model``."""
    norms = decoder_norms(model)  # a tenth of a graph's time, and the same for every prompt

    def by_effect(linear: LinearModel, direction: Tensor, neurons: Tensor) -> DenseGraph:
        expanded = strongest(neurons, settings.feature_nodes)
        components = components_of(linear, NeuronBasis(model, expanded))
        A = adjacency(linear, components, direction.unsqueeze(0), settings.max_memory_gb)
        return DenseGraph(expanded, components.activations, A)

    def by_influence(linear: LinearModel, direction: Tensor, _neurons: Tensor) -> DenseGraph:
        candidates = loudest(linear, settings.candidates_per_place, norms)
        components = components_of(linear, NeuronBasis(model, candidates))
        chosen, A = attribute_by_influence(
            linear,
            components,
            direction.unsqueeze(0),
            torch.ones(1),
            max_feature_nodes=settings.feature_nodes,
            rows_per_round=max(1, settings.feature_nodes // ROUNDS),
            fold=True,
            max_memory_gb=settings.max_memory_gb,
        )
        return DenseGraph(components.features[chosen], components.activations[chosen], A)

    ours = by_influence if settings.selection == "influence" else by_effect
    if settings.engine != "circuit-tracer":
        return ours
    # circuit-tracer and nnsight take seconds to import and patch torch: only where they are used.
    from circuitdrift.attribution.circuit_tracer import (
        WholeReplacementModel,
        attribute_neurons,
        tokenizer_of,
    )

    replacement = WholeReplacementModel.around(model, tokenizer_of(model))

    def circuit_tracer(linear: LinearModel, direction: Tensor, neurons: Tensor) -> DenseGraph:
        """circuit-tracer's edges between the neurons that our engine chooses."""
        chosen = ours(linear, direction, neurons)
        graph = attribute_neurons(
            replacement, linear.frozen.tokens[0], direction, chosen.expanded, settings.batch_size
        )
        return DenseGraph(chosen.expanded, chosen.activations, graph.adjacency_matrix)

    return circuit_tracer


def strongest(neurons: Tensor, n: int) -> Tensor:
    """The ``n`` neurons of largest |effect|, out of ``[n_layers, n_positions, d_mlp]``.

    Returns:
        (layer, position, neuron), ascending ``[min(n, all), 3]``.
    """
    magnitude = neurons.abs().flatten()
    chosen = torch.topk(magnitude, min(n, len(magnitude))).indices.sort().values
    return torch.stack(torch.unravel_index(chosen, neurons.shape), dim=1)


@torch.no_grad()
def loudest(linear: LinearModel, per_place: int, decoder_norms: Tensor) -> Tensor:
    """The neurons that write the longest vectors at each layer and position of the first prompt.

    Among them a graph grows by influence. The cut is per place because the first token's neurons
    write vectors so long that a common cut would take little else.

    Returns:
        (layer, position, neuron), ascending ``[n_layers * n_positions * per_place, 3]``.
    """
    places = []
    for layer, frozen in enumerate(linear.frozen.layers):
        written = frozen.activation[0].abs() * decoder_norms[layer]
        count = min(per_place, written.shape[1])
        neurons = written.topk(count, dim=1).indices.sort(dim=1).values
        position = torch.arange(len(written)).repeat_interleave(count)
        layers = torch.full_like(position, layer)
        places.append(torch.stack([layers, position, neurons.flatten()], dim=1))
    return torch.cat(places)


@torch.no_grad()
def decoder_norms(model: PreTrainedModel) -> Tensor:
    """Length of every neuron's column of the down projection ``[n_layers, d_mlp]``."""
    return torch.stack([layer.mlp.down_proj.weight.norm(dim=0) for layer in model.model.layers])


def attribute_by_influence(
    linear: LinearModel,
    components: Components,
    directions: Tensor,
    probabilities: Tensor,
    *,
    max_feature_nodes: int,
    rows_per_round: int,
    fold: bool,
    max_memory_gb: float,
) -> tuple[Tensor, Tensor]:
    """The graph of the features that circuit-tracer's ``attribute`` would choose.

    Features are expanded in rounds, each of those of largest influence in the graph so far.

    Args:
        components: all active features.
        directions, probabilities: of the targets ``[n_targets, d_model]``, ``[n_targets]``.
        rows_per_round: circuit-tracer's ``update_interval`` (4) times its ``batch_size``.
        fold: count what is not expanded to the error nodes; else drop it, as circuit-tracer does,
            and rows sum to less than activations.

    Returns:
        indices of the chosen features, ascending ``[n_chosen]``, and the adjacency over them,
        errors, tokens and targets.
    """
    n_active, n_targets = len(components.features), len(directions)
    if max_feature_nodes >= n_active:
        return torch.arange(n_active), adjacency(linear, components, directions, max_memory_gb)
    graph = _GrowingGraph(max_feature_nodes, n_targets, components.n_sources)
    targets = edges_into(linear, components, target_rows(linear, directions), max_memory_gb)
    graph.add(targets, components.n_sources + torch.arange(n_targets))
    features = feature_rows(components)
    visited = torch.zeros(n_active, dtype=torch.bool)
    for done in range(0, max_feature_nodes, rows_per_round):
        ranked = torch.argsort(graph.influence(probabilities)[:n_active], descending=True)
        chosen = ranked[~visited[ranked]][: min(rows_per_round, max_feature_nodes - done)]
        visited[chosen] = True
        graph.add(edges_into(linear, components, features[chosen], max_memory_gb), chosen)
    if fold:
        graph.fold(components, ~visited)
    return visited.nonzero().squeeze(1), graph.adjacency(visited)


class _GrowingGraph:
    """The rows that are known so far, targets first, then features as they were expanded.

    Attributes:
        edges: ``[n_rows, n_sources + n_targets]``.
        normalised: |edges| with every row summing to 1.
        node_of_row: ``[n_rows]``.
        known: how many rows are.
    """

    def __init__(self, n_features: int, n_targets: int, n_sources: int) -> None:
        n_rows = n_targets + n_features
        self.n_features, self.n_targets = n_features, n_targets
        self.edges = torch.zeros(n_rows, n_sources + n_targets)
        self.normalised = torch.zeros_like(self.edges)
        self.node_of_row = torch.zeros(n_rows, dtype=torch.int32)
        self.known = 0

    def add(self, edges: Tensor, nodes: Tensor) -> None:
        """Add the rows of ``nodes`` ``[n_added, n_sources]``."""
        new = slice(self.known, self.known + len(nodes))
        self.edges[new, : edges.shape[1]] = edges
        self.normalised[new] = self.edges[new].abs()
        # The smallest row is circuit-tracer's.
        self.normalised[new] /= self.normalised[new].sum(1, keepdim=True).clamp(1e-8)
        self.node_of_row[new] = nodes.int()
        self.known = new.stop

    def influence(self, probabilities: Tensor) -> Tensor:
        """Influence of every node over the rows that are known, ``probabilities`` ``[n_targets]``.

        circuit-tracer's ``compute_partial_influences`` carries the whole sum along every path.
        Paths run through known rows alone, so they are followed among those, and all columns are
        read once.
        """
        normalised = self.normalised[: self.known]
        among_known = normalised[:, self.node_of_row[: self.known]]
        arriving = torch.zeros(self.known)
        arriving[: self.n_targets] = probabilities
        reached = arriving.clone()
        while arriving.any():
            arriving = arriving @ among_known
            reached += arriving
        return reached @ normalised

    def fold(self, components: Components, features: Tensor) -> None:
        """Add the edges from ``features``, a mask, to those from the errors beside them."""
        if len(components.decoders) != len(components.features):
            raise ValueError("a feature that writes at several layers has no one error to go to")
        n_positions = components.errors.shape[1]
        layer, position, _ = components.features[features].T
        errors = len(components.features) + layer * n_positions + position
        self.edges.index_add_(1, errors, self.edges[:, : len(features)][:, features])

    def adjacency(self, visited: Tensor) -> Tensor:
        """Rows in the order of nodes, columns of the features that were expanded."""
        others = torch.ones(self.edges.shape[1] - len(visited), dtype=torch.bool)
        ordered = self.edges[self.node_of_row.argsort()][:, torch.cat([visited, others])]
        A = torch.zeros(ordered.shape[1], ordered.shape[1])
        A[: self.n_features] = ordered[: self.n_features]
        A[-self.n_targets :] = ordered[self.n_features :]
        return A

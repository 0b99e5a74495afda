"""Growing a graph by influence within a set of active features, as circuit-tracer does.

What is never expanded is dropped, as circuit-tracer drops it, to hold one engine against the other;
or folded into the error of its layer and position, so that rows still sum to activations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitdrift.attribution.components import Components
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.sweep import (
    Rows,
    feature_rows,
    sweep,
    sweep_rows,
    target_rows,
)

_SMALLEST_ROW = 1e-8  # circuit-tracer's


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

    Raises:
        ValueError: on folding features that write at several layers.
    """
    n_active = len(components.features)
    if max_feature_nodes >= n_active:
        return torch.arange(n_active), sweep(linear, components, directions, max_memory_gb)
    n_chosen = max_feature_nodes
    graph = _GrowingGraph(linear, components, len(directions) + n_chosen, len(directions))
    targets = target_rows(linear, directions)
    graph.expand(targets, components.n_sources + torch.arange(len(directions)), max_memory_gb)
    features = feature_rows(components)
    visited = torch.zeros(n_active, dtype=torch.bool)
    for done in range(0, n_chosen, rows_per_round):
        ranked = torch.argsort(graph.influence(probabilities)[:n_active], descending=True)
        chosen = ranked[~visited[ranked]][: min(rows_per_round, n_chosen - done)]
        visited[chosen] = True
        graph.expand(features[chosen], chosen, max_memory_gb)
    if fold:
        graph.fold(~visited)
    return visited.nonzero().squeeze(1), graph.adjacency(visited)


class _GrowingGraph:
    """The rows that are known so far, in the order in which they were expanded.

    Attributes:
        edges: ``[n_rows, n_sources + n_targets]``.
        normalised: |edges| with every row summing to 1.
        node_of_row: ``[n_rows]``.
        known: how many rows are.
    """

    def __init__(
        self, linear: LinearModel, components: Components, n_rows: int, n_targets: int
    ) -> None:
        self.linear, self.components, self.n_targets = linear, components, n_targets
        self.edges = torch.zeros(n_rows, components.n_sources + n_targets)
        self.normalised = torch.zeros_like(self.edges)
        self.node_of_row = torch.zeros(n_rows, dtype=torch.int32)
        self.known = 0

    def expand(self, rows: Rows, nodes: Tensor, max_memory_gb: float) -> None:
        """Add the rows of ``nodes``."""
        new = slice(self.known, self.known + len(nodes))
        swept = sweep_rows(self.linear, self.components, rows, max_memory_gb)
        self.edges[new, : swept.shape[1]] = swept
        self.normalised[new] = self.edges[new].abs()
        self.normalised[new] /= self.normalised[new].sum(1, keepdim=True).clamp(min=_SMALLEST_ROW)
        self.node_of_row[new] = nodes.int()
        self.known = new.stop

    def influence(self, probabilities: Tensor) -> Tensor:
        """Of every node on the targets, over the rows that are known."""
        known = slice(self.known)
        return partial_influence(self.normalised[known], probabilities, self.node_of_row[known])

    def fold(self, features: Tensor) -> None:
        """Add the edges from ``features``, a mask, to those from the errors beside them."""
        components = self.components
        if len(components.decoders) != len(components.features):
            raise ValueError("a feature that writes at several layers has no one error to go to")
        n_positions = components.errors.shape[1]
        layer, position, _ = components.features[features].T
        errors = len(components.features) + layer * n_positions + position
        self.edges.index_add_(1, errors, self.edges[:, : len(features)][:, features])

    def adjacency(self, visited: Tensor) -> Tensor:
        """Rows in the order of nodes, columns of the features that were expanded."""
        kept = torch.cat(
            [visited, torch.ones(self.edges.shape[1] - len(visited), dtype=torch.bool)]
        )
        ordered = self.edges[self.node_of_row.argsort()][:, kept]
        n_features = int(visited.sum())
        A = torch.zeros(ordered.shape[1], ordered.shape[1])
        A[:n_features] = ordered[:n_features]
        A[-self.n_targets :] = ordered[n_features:]
        return A


def partial_influence(normalised: Tensor, probabilities: Tensor, node_of_row: Tensor) -> Tensor:
    """Influence of every node on the targets over the rows that are known so far.

    circuit-tracer's ``compute_partial_influences`` carries the whole sum along every path. Paths
    run through known rows alone, so they are followed among those, and all columns are read once.

    Args:
        normalised: |edges| of the known rows, each summing to 1 ``[n_rows, n_nodes]``; the targets
            are the first rows and the last nodes.
        probabilities: of the targets ``[n_targets]``.
        node_of_row: ``[n_rows]``.
    """
    among_known = normalised[:, node_of_row]
    arriving = torch.zeros(len(normalised))
    arriving[: len(probabilities)] = probabilities
    reached = arriving.clone()
    while arriving.any():
        arriving = arriving @ among_known
        reached += arriving
    return reached @ normalised

"""circuit-tracer's own choice of features, reproduced on the sweep to hold one against the other.

It grows a graph by influence within a set of active features. The study's default, the neurons of
largest |effect| (:mod:`circuitdrift.attribution.selection`), sees every neuron and needs no edge.
"""

from __future__ import annotations

import torch
from circuit_tracer.graph import compute_partial_influences
from torch import Tensor

from circuitdrift.attribution.components import Components
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.sweep import feature_rows, sweep_rows, target_rows


def attribute_by_influence(
    linear: LinearModel,
    components: Components,
    directions: Tensor,
    probabilities: Tensor,
    *,
    max_feature_nodes: int,
    batch_size: int,
    update_interval: int = 4,
    max_memory_gb: float,
) -> tuple[Tensor, Tensor]:
    """The graph of the features that circuit-tracer's ``attribute`` would choose.

    Features are expanded in rounds of ``update_interval * batch_size``; a round takes those of
    largest influence in the graph so far. Active features that are never expanded are dropped, as
    circuit-tracer drops them: such a graph's rows sum to less than activations.

    Args:
        components: all active features.
        directions, probabilities: of the targets ``[n_targets, d_model]``, ``[n_targets]``.

    Returns:
        indices of the chosen features, ascending ``[n_chosen]``, and the adjacency over them,
        errors, tokens and targets.
    """
    n_active, n_sources, n_targets = (
        len(components.features),
        components.n_sources,
        len(directions),
    )
    n_chosen = min(max_feature_nodes, n_active)
    edges = torch.zeros(n_targets + n_chosen, n_sources + n_targets)
    node_of_row = torch.zeros(n_targets + n_chosen, dtype=torch.int32)
    edges[:n_targets, :n_sources] = sweep_rows(
        linear, components, target_rows(linear, directions), max_memory_gb
    )
    node_of_row[:n_targets] = n_sources + torch.arange(n_targets)
    all_features = feature_rows(components)
    visited = torch.zeros(n_active, dtype=torch.bool)
    done = n_targets
    while done < n_targets + n_chosen:
        influence = compute_partial_influences(edges[:done], probabilities, node_of_row[:done])
        ranked = torch.argsort(influence[:n_active], descending=True)
        left = n_targets + n_chosen - done
        chosen = ranked[~visited[ranked]][: min(update_interval * batch_size, left)]
        end = done + len(chosen)
        edges[done:end, :n_sources] = sweep_rows(
            linear, components, all_features[chosen], max_memory_gb
        )
        node_of_row[done:end] = chosen.int()
        visited[chosen] = True
        done = end
    return visited.nonzero().squeeze(1), _adjacency(edges, node_of_row, visited, n_targets)


def _adjacency(edges: Tensor, node_of_row: Tensor, visited: Tensor, n_targets: int) -> Tensor:
    """Rows in the order of nodes, columns of the features that were expanded."""
    kept = torch.cat([visited, torch.ones(edges.shape[1] - len(visited), dtype=torch.bool)])
    ordered = edges[node_of_row.argsort()][:, kept]
    A = torch.zeros(ordered.shape[1], ordered.shape[1])
    n_features = int(visited.sum())
    A[:n_features] = ordered[:n_features]
    A[-n_targets:] = ordered[n_features:]
    return A

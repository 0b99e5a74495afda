"""Influence, pruning and scores of a dense attribution graph, as circuit-tracer defines them.

All functions take the adjacency ``A [n_nodes, n_nodes]`` of direct effects, rows being targets
and columns sources, ``weights [n_nodes]``, non-zero on the target nodes alone, and masks
``[n_nodes]``.
Source: circuit-tracer's graph.py, after "Circuit Tracing" (Ameisen et al., 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuitdrift.circuits.circuit import Scores


def normalise(A: Tensor) -> Tensor:
    """|A| with every row summing to 1; rows of zeros stay zero."""
    absolute = A.abs()
    return absolute / absolute.sum(1, keepdim=True).clamp(min=1e-10)


def node_influence(normalised: Tensor, weights: Tensor) -> Tensor:
    """Influence ``[n_nodes]`` on the targets over all paths: sum over k of ``weights . A^k``.

    Raises:
        ValueError: if the graph has a cycle, where the sum has no end.
    """
    arriving = weights @ normalised
    total = arriving.clone()
    for _ in range(len(weights)):
        if not arriving.any():
            return total
        arriving = arriving @ normalised
        total += arriving
    raise ValueError("influence does not end: the graph has a cycle")


def scores(normalised: Tensor, weights: Tensor, is_error: Tensor, is_token: Tensor) -> Scores:
    """Replacement, completeness and error mass of a whole (unpruned) graph."""
    influence = node_influence(normalised, weights)
    errors, tokens = influence[is_error].sum(), influence[is_token].sum()
    reached = influence + weights
    explained = 1 - normalised[:, is_error].sum(1)
    return Scores(
        replacement=(tokens / (tokens + errors)).item(),
        completeness=((explained * reached).sum() / reached.sum()).item(),
        error_mass=(errors / influence.sum()).item(),
    )


@dataclass(frozen=True)
class Pruned:
    """What remains of a graph: masks over nodes ``[n_nodes]`` and edges ``[n_nodes, n_nodes]``."""

    nodes: Tensor
    edges: Tensor


def prune(
    A: Tensor, weights: Tensor, is_feature: Tensor, is_error: Tensor, shares: tuple[float, float]
) -> Pruned:
    """Keep the nodes, then the edges, that hold a share of the influence; drop what dangles.

    Tokens and targets are always kept. A feature or error without an outgoing edge, or a feature
    without an incoming one, goes, repeatedly.

    Args:
        shares: of influence that the kept nodes and the kept edges hold.
    """
    node_share, edge_share = shares
    inner = is_feature | is_error
    influence = node_influence(normalise(A), weights)
    nodes = (influence >= _cut(influence, node_share)) | ~inner
    kept = A * nodes.unsqueeze(0) * nodes.unsqueeze(1)
    normalised = normalise(kept)
    edge_influence = normalised * (node_influence(normalised, weights) + weights).unsqueeze(1)
    edges = edge_influence >= _cut(edge_influence.flatten(), edge_share)
    while True:
        dangling = nodes & ((inner & ~edges.any(0)) | (is_feature & ~edges.any(1)))
        if not dangling.any():
            return Pruned(nodes, edges)
        nodes = nodes & ~dangling
        edges = edges & nodes.unsqueeze(0) & nodes.unsqueeze(1)


def _cut(influence: Tensor, share: float) -> Tensor:
    """The smallest value among the largest that together hold ``share`` of the sum."""
    descending = influence.sort(descending=True).values
    cumulative = descending.cumsum(0) / descending.sum()
    last = min(int(torch.searchsorted(cumulative, share)), len(descending) - 1)
    return descending[last]

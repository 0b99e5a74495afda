"""All rows of an attribution graph in one pass from the top layer to the bottom, no autograd.

Under frozen attention patterns and norm scales the model is linear, so the gradients of all
target nodes travel down together. At each layer, from the top: score the gradients against what
the layer's features and errors add to the residual stream; start the rows of the layer's own
features at their encoders; carry everything through the attention block. What arrives at the
bottom is scored against the token embeddings.

A target at position p reads no position after p, so rows travel in groups of equal position, each
with a gradient of only p + 1 positions: half the work of carrying full rectangles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitdrift.attribution.components import Components, Sources
from circuitdrift.attribution.linear_model import LinearModel


@dataclass(frozen=True)
class Rows:
    """Target nodes: where each gradient starts, and with what.

    Attributes:
        layer: whose MLP reads it; the number of layers for the targets at the top ``[n_rows]``.
        position: ``[n_rows]``.
        start: the gradient at that place of the residual stream ``[n_rows, d_model]``.
    """

    layer: Tensor
    position: Tensor
    start: Tensor

    def __getitem__(self, chosen: Tensor) -> Rows:
        return Rows(self.layer[chosen], self.position[chosen], self.start[chosen])


def feature_rows(components: Components) -> Rows:
    """The features as targets, in their order."""
    layer, position, _ = components.features.T
    return Rows(layer, position, components.encoders)


def target_rows(linear: LinearModel, directions: Tensor) -> Rows:
    """Directions in the final norm's output ``[n_targets, d_model]`` as targets."""
    last = linear.frozen.lengths - 1
    return Rows(
        layer=torch.full((len(directions),), linear.n_layers),
        position=last.expand(len(directions)),
        start=linear.inject_targets(directions.unsqueeze(0))[0, :, -1],
    )


def sweep(
    linear: LinearModel, components: Components, directions: Tensor, max_memory_gb: float
) -> Tensor:
    """The adjacency of a whole graph: all features, errors, tokens and targets.

    Args:
        linear: a model frozen on one prompt.
        components: the features to expand and the errors left over.
        directions: of the targets in the final norm's output ``[n_targets, d_model]``.
        max_memory_gb: see :func:`sweep_rows`.

    Returns:
        ``[n_nodes, n_nodes]`` with nodes in circuit-tracer's order (features, errors by layer and
        position, tokens, targets); rows are targets, columns sources.
    """
    n_features, n_targets = len(components.features), len(directions)
    n_sources = components.n_sources
    A = torch.zeros(n_sources + n_targets, n_sources + n_targets)
    A[:n_features, :n_sources] = sweep_rows(
        linear, components, feature_rows(components), max_memory_gb
    )
    A[n_sources:, :n_sources] = sweep_rows(
        linear, components, target_rows(linear, directions), max_memory_gb
    )
    return A


@torch.no_grad()
def sweep_rows(
    linear: LinearModel, components: Components, rows: Rows, max_memory_gb: float
) -> Tensor:
    """Direct effects of all sources on some targets.

    Rows do not depend on one another. Where their gradients together would not fit the memory
    they are swept in several passes; the shapes of the matrix products then differ, and with them
    the last bits (differences of 1e-6 of the largest edge).

    Args:
        max_memory_gb: of the gradients on their way; the result itself comes on top.

    Returns:
        ``[n_rows, n_sources]``, sources being features, errors by layer and position, and tokens.
    """
    edges = torch.zeros(len(rows.layer), components.n_sources)
    for part in _split(rows, _pairs_that_fit(linear, max_memory_gb)):
        edges[part] = _sweep_at_once(linear, components, rows[part])
    return edges


# Gradient, its copy while rows join, and twice the widest product of the attention block.
_COPIES = 2
_BYTES = 4


def _pairs_that_fit(linear: LinearModel, max_memory_gb: float) -> int:
    """How many (row, position) pairs may travel at once."""
    attention = linear.block(0).self_attn
    widest = max(attention.o_proj.weight.shape)
    d_model = linear.frozen.embeddings.shape[-1]
    return int(max_memory_gb * 1e9 / (_BYTES * (_COPIES * d_model + 2 * widest)))


def _split(rows: Rows, pairs_at_once: int) -> Iterator[Tensor]:
    """Indices of rows with together about so many (row, position) pairs, by position."""
    order = torch.argsort(rows.position, stable=True)
    part = ((rows.position[order] + 1).cumsum(0) - 1) // max(pairs_at_once, 1)
    for number in part.unique().tolist():
        yield order[part == number]


def _sweep_at_once(linear: LinearModel, components: Components, rows: Rows) -> Tensor:
    """Carry rows from the top to the bottom, noting their edges on the way."""
    edges = torch.zeros(len(rows.layer), components.n_sources)
    n_positions, d_model = linear.frozen.embeddings.shape[1:]
    groups = {position: _Group(position, d_model) for position in rows.position.unique().tolist()}

    def join(group: _Group, position: int, layer: int) -> None:
        joining = ((rows.layer == layer) & (rows.position == position)).nonzero().squeeze(1)
        group.join(joining, rows.start[joining])

    for position, group in groups.items():
        join(group, position, linear.n_layers)
    for layer in reversed(range(linear.n_layers)):
        sources = components.sources[layer]
        for position, group in groups.items():
            group.score(edges, sources)
            group.pass_skip(components, layer)
            join(group, position, layer)
        _pass_attention(linear, layer, groups.values())
    columns = components.n_sources - n_positions + torch.arange(n_positions)
    tokens = Sources(linear.frozen.embeddings[0].unsqueeze(1), columns.unsqueeze(1))
    for group in groups.values():
        group.score(edges, tokens)
    return edges


class _Group:
    """The rows of the targets at one position, on their way down.

    Attributes:
        index: of the rows in the edge matrix, in the order in which they joined ``[n_rows]``.
        gradient: on the positions that they can read ``[position + 1, n_rows, d_model]``.
    """

    def __init__(self, position: int, d_model: int) -> None:
        self.index = torch.zeros(0, dtype=torch.long)
        self.gradient = torch.zeros(position + 1, 0, d_model)

    def join(self, index: Tensor, start: Tensor) -> None:
        """Let rows begin, with ``start [n_joining, d_model]``, at the group's position."""
        if len(index):
            joining = torch.zeros(len(self.gradient), *start.shape)
            joining[-1] = start
            self.gradient = torch.cat([self.gradient, joining], dim=1)
            self.index = torch.cat([self.index, index])

    def score(self, edges: Tensor, sources: Sources) -> None:
        """Add the direct effects of the sources on the group's targets.

        They are added, not set: a cross-layer feature writes at several layers.
        """
        n_positions = len(self.gradient)
        vectors, columns = sources.vectors[:n_positions], sources.columns[:n_positions]
        scores = torch.bmm(self.gradient, vectors.transpose(1, 2)).permute(1, 0, 2)
        filled = columns >= 0
        edges[self.index.unsqueeze(1), columns[filled]] += scores[:, filled]

    def pass_skip(self, components: Components, layer: int) -> None:
        """Add what reaches the MLP's input through the layer's skip connection."""
        if components.skips:
            self.gradient += torch.bmm(self.gradient, components.skips[layer][: len(self.gradient)])


def _pass_attention(linear: LinearModel, layer: int, groups: Iterable[_Group]) -> None:
    """Add to every group what reaches the residual stream below through the attention block."""
    present = [group for group in groups if len(group.index)]
    if not present:
        return
    gradients = [group.gradient for group in present]
    for group, below in zip(
        present, linear.through_attention_of_groups(layer, gradients), strict=True
    ):
        group.gradient += below

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

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.neurons import FeatureBasis

KEEP_ALL_POSITIONS = slice(0, 0)


@dataclass(frozen=True)
class Sources:
    """What is scored at one level of the residual stream, padded to a rectangle over positions.

    Attributes:
        vectors: ``[n_positions, n_slots, d_model]``, zero where a slot is empty.
        columns: index of each slot's node in the edge matrix ``[n_positions, n_slots]``, -1 where
            it is empty.
    """

    vectors: Tensor
    columns: Tensor


@dataclass(frozen=True)
class Components:
    """What a feature basis reads from and writes to the residual stream on one prompt.

    Attributes:
        features: (layer, position, unit), ascending ``[n_features, 3]``.
        activations: ``[n_features]``.
        encoders: gradient of each activation in the residual stream below its layer's MLP
            ``[n_features, d_model]``.
        decoders: what is added to the residual stream ``[n_decoders, d_model]``.
        decoder_layers, decoder_positions: where ``[n_decoders]``.
        decoder_features: by which feature, an index into ``features`` ``[n_decoders]``.
        errors: what the MLPs add beyond the features ``[n_layers, n_positions, d_model]``.
        skips: per layer, gradients with respect to the MLP's addition times this are gradients
            with respect to the residual stream below the MLP ``[n_positions, d_model, d_model]``;
            empty without skip connections.
    """

    features: Tensor
    activations: Tensor
    encoders: Tensor
    decoders: Tensor
    decoder_layers: Tensor
    decoder_positions: Tensor
    decoder_features: Tensor
    errors: Tensor
    skips: tuple[Tensor, ...] = ()

    @property
    def n_sources(self) -> int:
        """Features, errors and tokens: the columns of an edge matrix."""
        n_layers, n_positions, _ = self.errors.shape
        return len(self.features) + (n_layers + 1) * n_positions

    @cached_property
    def sources(self) -> tuple[Sources, ...]:
        """What is written at each layer; every pass over the same components reads it again."""
        return tuple(self._sources(layer) for layer in range(len(self.errors)))

    def _sources(self, layer: int) -> Sources:
        """The layer's errors, in slot 0, and its decoders, position by position."""
        n_positions, d_model = self.errors.shape[1:]
        chosen = (self.decoder_layers == layer).nonzero().squeeze(1)
        chosen = chosen[self.decoder_positions[chosen].argsort(stable=True)]
        positions = self.decoder_positions[chosen]
        counts = torch.bincount(positions, minlength=n_positions)
        slots = torch.arange(len(chosen)) - (counts.cumsum(0) - counts)[positions] + 1

        vectors = torch.zeros(n_positions, 1 + int(counts.max()), d_model)
        columns = torch.full(vectors.shape[:2], -1)
        vectors[:, 0] = self.errors[layer]
        columns[:, 0] = len(self.features) + layer * n_positions + torch.arange(n_positions)
        vectors[positions, slots] = self.decoders[chosen]
        columns[positions, slots] = self.decoder_features[chosen]
        return Sources(vectors, columns)


@torch.no_grad()
def components_of(
    linear: LinearModel, basis: FeatureBasis, zero_positions: slice = KEEP_ALL_POSITIONS
) -> Components:
    """Ask a feature basis for its components on the one prompt that ``linear`` is frozen on.

    Args:
        zero_positions: where features and errors are dropped, as circuit-tracer drops the first;
            there, rows no longer sum to activations.

    Raises:
        ValueError: if ``linear`` is frozen on several prompts, or the basis reads or writes at a
            hook that is not known.
    """
    if len(linear.frozen.lengths) != 1:
        raise ValueError("components are of one prompt; freeze one at a time")
    if basis.feature_output_hook not in ("hook_mlp_out", linear.architecture.hook_output):
        raise ValueError(f"a basis writes at hook_mlp_out, got {basis.feature_output_hook!r}")
    layers = linear.frozen.layers
    hook = basis.feature_input_hook
    factors = torch.stack([linear.hook_factor(layer, hook) for layer in range(linear.n_layers)])
    inputs = torch.cat([layer.mlp_residual for layer in layers]) * factors
    parts = basis.compute_attribution_components(inputs, zero_positions)
    features = parts["activation_matrix"].indices().T
    errors = torch.cat([layer.mlp_output for layer in layers]) - parts["reconstruction"]
    errors[:, zero_positions] = 0
    skips = []
    if basis.skip_connection:
        # A linear skip's transpose, then the norm before it.
        identity = torch.eye(factors.shape[-1])
        skips = [
            basis.compute_skip(layer, identity).T * factor.unsqueeze(1)
            for layer, factor in enumerate(factors)
        ]
    return Components(
        features=features,
        activations=parts["activation_matrix"].values(),
        encoders=parts["encoder_vecs"] * factors[features[:, 0], features[:, 1]],
        decoders=parts["decoder_vecs"],
        decoder_layers=parts["decoder_locations"][0],
        decoder_positions=parts["decoder_locations"][1],
        decoder_features=parts["encoder_to_decoder_map"],
        errors=errors,
        skips=tuple(skips),
    )


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
    return Rows(
        layer=torch.full((len(directions),), linear.n_layers),
        position=(linear.frozen.lengths - 1).expand(len(directions)),
        start=linear.inject_targets(directions.unsqueeze(0))[0, :, -1],
    )


def adjacency(
    linear: LinearModel, components: Components, directions: Tensor, max_memory_gb: float
) -> Tensor:
    """The adjacency of a whole graph: all features, errors, tokens and targets.

    Args:
        directions: of the targets in the final norm's output ``[n_targets, d_model]``.

    Returns:
        ``[n_nodes, n_nodes]`` with nodes in circuit-tracer's order (features, errors by layer and
        position, tokens, targets); rows are targets, columns sources.
    """
    n_sources = components.n_sources
    size = n_sources + len(directions)
    A = torch.zeros(size, size)
    for first, rows in (
        (0, feature_rows(components)),
        (n_sources, target_rows(linear, directions)),
    ):
        edges = edges_into(linear, components, rows, max_memory_gb)
        A[first : first + len(edges), :n_sources] = edges
    return A


@torch.no_grad()
def edges_into(
    linear: LinearModel, components: Components, rows: Rows, max_memory_gb: float
) -> Tensor:
    """Direct effects of features, errors and tokens on some targets ``[n_rows, n_sources]``.

    Rows travel in several passes where their gradients would not fit ``max_memory_gb``, on top of
    which comes the result. The shapes of the matrix products then differ, and with them the last
    bits (differences of 1e-6 of the largest edge).
    """
    edges = torch.zeros(len(rows.layer), components.n_sources)
    for part in _split(rows, _pairs_that_fit(linear, max_memory_gb)):
        edges[part] = _edges_at_once(linear, components, rows[part])
    return edges


def _pairs_that_fit(linear: LinearModel, max_memory_gb: float) -> int:
    """How many (row, position) pairs may travel at once."""
    d_model, d_heads = linear.block(0).self_attn.o_proj.weight.shape
    # 4 bytes: gradient, its copy while rows join, and twice the attention block's widest product.
    return int(max_memory_gb * 1e9 / (4 * (2 * d_model + 2 * max(d_model, d_heads))))


def _split(rows: Rows, pairs_at_once: int) -> Iterator[Tensor]:
    """Indices of rows with together about so many (row, position) pairs, by position."""
    order = torch.argsort(rows.position, stable=True)
    part = ((rows.position[order] + 1).cumsum(0) - 1) // max(pairs_at_once, 1)
    for number in part.unique().tolist():
        yield order[part == number]


def _edges_at_once(linear: LinearModel, components: Components, rows: Rows) -> Tensor:
    """Carry rows from the top to the bottom, noting their edges on the way."""
    edges = torch.zeros(len(rows.layer), components.n_sources)
    embeddings = linear.frozen.embeddings[0]
    groups = [
        _Group(rows, position, embeddings.shape[1]) for position in rows.position.unique().tolist()
    ]
    for group in groups:
        group.join(linear.n_layers)
    for layer in reversed(range(linear.n_layers)):
        for group in groups:
            group.score(edges, components.sources[layer])
            if components.skips:
                group.pass_skip(components.skips[layer])
            group.join(layer)
        travelling = [group for group in groups if len(group.index)]
        if travelling:
            gradients = [group.gradient for group in travelling]
            below = linear.through_attention_of_groups(layer, gradients)
            for group, arriving in zip(travelling, below, strict=True):
                group.gradient += arriving
    columns = components.n_sources - len(embeddings) + torch.arange(len(embeddings))
    for group in groups:
        group.score(edges, Sources(embeddings.unsqueeze(1), columns.unsqueeze(1)))
    return edges


class _Group:
    """The rows of the targets at one position, on their way down.

    Attributes:
        index: of the rows in the edge matrix, in the order in which they joined ``[n_rows]``.
        gradient: on the positions that they can read ``[position + 1, n_rows, d_model]``.
        waiting: by layer, the index of the rows that join there ``[n_joining]``, and their start.
    """

    def __init__(self, rows: Rows, position: int, d_model: int) -> None:
        self.index = torch.zeros(0, dtype=torch.long)
        self.gradient = torch.zeros(position + 1, 0, d_model)
        here = (rows.position == position).nonzero().squeeze(1)
        layers = rows.layer[here]
        self.waiting = {
            layer: (chosen, rows.start[chosen])
            for layer in layers.unique().tolist()
            for chosen in (here[layers == layer],)
        }

    def join(self, layer: int) -> None:
        """Let the rows that are read at ``layer`` begin, at the group's position."""
        if layer in self.waiting:
            index, start = self.waiting[layer]
            joining = torch.zeros(len(self.gradient), *start.shape)
            joining[-1] = start
            self.gradient = torch.cat([self.gradient, joining], dim=1)
            self.index = torch.cat([self.index, index])

    def score(self, edges: Tensor, sources: Sources) -> None:
        """Add the sources' direct effects: a cross-layer feature writes at several layers."""
        if not len(self.index):
            return
        n_positions = len(self.gradient)
        vectors, columns = sources.vectors[:n_positions], sources.columns[:n_positions]
        scores = torch.bmm(self.gradient, vectors.transpose(1, 2)).permute(1, 0, 2)
        filled = columns >= 0
        edges[self.index.unsqueeze(1), columns[filled]] += scores[:, filled]

    def pass_skip(self, skip: Tensor) -> None:
        """Add what reaches the MLP's input through the layer's skip connection."""
        self.gradient += torch.bmm(self.gradient, skip[: len(self.gradient)])

"""A feature basis on one prompt, as the sweep takes it: what reads and writes where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.features.basis import FeatureBasis

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
        return tuple(_sources_of(self, layer) for layer in range(len(self.errors)))


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
    layers = range(linear.n_layers)
    inputs = torch.stack([linear.hook_input(layer, basis.feature_input_hook) for layer in layers])
    factors = torch.stack([linear.hook_factor(layer, basis.feature_input_hook) for layer in layers])
    parts = basis.compute_attribution_components(inputs, zero_positions)
    features = parts["activation_matrix"].indices().T
    errors = torch.cat([layer.mlp_output for layer in linear.frozen.layers])
    errors = errors - parts["reconstruction"]
    errors[:, zero_positions] = 0
    return Components(
        features=features,
        activations=parts["activation_matrix"].values(),
        encoders=parts["encoder_vecs"] * factors[features[:, 0], features[:, 1]],
        decoders=parts["decoder_vecs"],
        decoder_layers=parts["decoder_locations"][0],
        decoder_positions=parts["decoder_locations"][1],
        decoder_features=parts["encoder_to_decoder_map"],
        errors=errors,
        skips=tuple(_skip(basis, layer, factors[layer]) for layer in layers)
        if basis.skip_connection
        else (),
    )


def _skip(basis: FeatureBasis, layer: int, factor: Tensor) -> Tensor:
    """A linear skip's transpose, then the norm before it: ``[n_positions, d_model, d_model]``."""
    identity = torch.eye(factor.shape[-1])
    return basis.compute_skip(layer, identity).T * factor.unsqueeze(1)


def _sources_of(components: Components, layer: int) -> Sources:
    """What is written at a layer: its error, in slot 0, and its decoders, position by position."""
    n_positions, d_model = components.errors.shape[1:]
    chosen = (components.decoder_layers == layer).nonzero().squeeze(1)
    positions = components.decoder_positions[chosen]
    chosen = chosen[positions.argsort(stable=True)]
    positions = components.decoder_positions[chosen]
    counts = torch.bincount(positions, minlength=n_positions)
    slots = torch.arange(len(chosen)) - (counts.cumsum(0) - counts)[positions] + 1

    vectors = torch.zeros(n_positions, 1 + int(counts.max()), d_model)
    columns = torch.full(vectors.shape[:2], -1)
    vectors[:, 0] = components.errors[layer]
    columns[:, 0] = len(components.features) + layer * n_positions + torch.arange(n_positions)
    vectors[positions, slots] = components.decoders[chosen]
    columns[positions, slots] = components.decoder_features[chosen]
    return Sources(vectors, columns)

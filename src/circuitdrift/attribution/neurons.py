"""Neurons as the features of a replacement model: what they read, what they write, no training.

A gated MLP's neuron computes a = phi(g) * u with g = w_gate . x and u = w_up . x. The half-rule
(RelP, arXiv 2508.21258) treats phi(g)/g as a constant gain and halves the gradient of the product:

    da/dg := 1/2 * phi(g)/g * u        da/du := 1/2 * phi(g)

so that the encoder e = da/dg * w_gate + da/du * w_up satisfies e . x = a exactly. The decoder is
the activation times the neuron's column of the down projection, passed through the frozen post-MLP
norm where the model has one.

The basis is handed over through circuit-tracer's transcoder interface, so that edges are computed
for its transcoders, per-layer and cross-layer, as they are for neurons. Neurons that are not
expanded stay in the reconstruction error of their layer and position: a graph's rows always sum to
activations, and its scores count what is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from circuitdrift.models.architecture import (
    architecture_of,
    mlp_activation,
    norm_epsilon,
    norm_weight,
    rms_scale,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def activation_gain(gate: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
    """phi(g)/g elementwise, its limit phi'(0) taken by a central difference where g is near 0."""
    near_zero = gate.abs() < 1e-6
    safe = torch.where(near_zero, torch.ones_like(gate), gate)
    step = torch.tensor(1e-3, dtype=gate.dtype, device=gate.device)
    limit = (phi(step) - phi(-step)) / (2 * step)
    return torch.where(near_zero, limit, phi(safe) / safe)


def half_rule_gradients(
    gate: Tensor, up: Tensor, phi: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The linearised da/dg and da/du elementwise; times g and u they sum to the activation."""
    gain = activation_gain(gate, phi)
    return 0.5 * gain * up, 0.5 * gain * gate


class FeatureBasis(Protocol):
    """What attribution asks of a set of features: circuit-tracer's transcoder interface.

    ``feature_input_hook`` is ``hook_resid_mid`` (the residual stream before the MLP),
    ``ln2.hook_normalized`` (that, divided by its root mean square) or ``mlp.hook_in`` (that, times
    the norm's weight). ``feature_output_hook`` is what the MLP adds to the residual stream.
    """

    @property
    def feature_input_hook(self) -> str: ...

    @property
    def feature_output_hook(self) -> str: ...

    @property
    def skip_connection(self) -> bool: ...

    def compute_attribution_components(
        self, mlp_inputs: Tensor, zero_positions: slice, /
    ) -> dict[str, Tensor]:
        """Active features and their vectors, for inputs ``[n_layers, n_positions, d_model]``.

        Returns:
            ``activation_matrix``, sparse ``[n_layers, n_positions, n_units]``; ``encoder_vecs``
            ``[n_features, d_model]``; ``decoder_vecs``, times the activations
            ``[n_decoders, d_model]``; ``decoder_locations``, layer and position
            ``[2, n_decoders]``; ``encoder_to_decoder_map``, the feature of each decoder
            ``[n_decoders]``; ``reconstruction`` ``[n_layers, n_positions, d_model]``.
        """

    def compute_skip(self, layer_id: int, inputs: Tensor, /) -> Tensor:
        """The skip connection's linear map of inputs ``[n, d_model]``; only where there is one."""


@dataclass(frozen=True)
class NeuronBasis:
    """A model's neurons on one prompt: (layer, position, neuron), ascending ``[n_features, 3]``."""

    model: PreTrainedModel
    expanded: Tensor
    scan: str = "neurons"
    skip_connection: bool = False

    @property
    def feature_input_hook(self) -> str:
        return architecture_of(self.model).hook_input

    @property
    def feature_output_hook(self) -> str:
        return architecture_of(self.model).hook_output

    def to(self, *_device_and_dtype: object) -> NeuronBasis:
        """The weights are the model's own, wherever it is."""
        return self

    def compute_skip(self, _layer_id: int, _inputs: Tensor) -> Tensor:
        raise NotImplementedError("neurons have no skip connection")

    @torch.no_grad()
    def compute_attribution_components(
        self, mlp_inputs: Tensor, _zero_positions: slice
    ) -> dict[str, Tensor]:
        n_layers, n_positions, d_model = mlp_inputs.shape
        layers = [self._layer(layer, inputs) for layer, inputs in enumerate(mlp_inputs)]
        activations, encoders, decoders = map(torch.cat, zip(*layers, strict=True))
        layer, position, _ = self.expanded.T
        reconstruction = torch.zeros(n_layers * n_positions, d_model)
        reconstruction.index_add_(0, layer * n_positions + position, decoders)
        return {
            "activation_matrix": torch.sparse_coo_tensor(
                self.expanded.T,
                activations,
                (n_layers, n_positions, self.model.config.intermediate_size),
                is_coalesced=True,
                check_invariants=False,
            ),
            "reconstruction": reconstruction.view(n_layers, n_positions, d_model),
            "encoder_vecs": encoders,
            "decoder_vecs": decoders,
            "encoder_to_decoder_map": torch.arange(len(self.expanded)),
            "decoder_locations": self.expanded[:, :2].T,
        }

    def _layer(self, layer: int, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Activations ``[n_features]``, encoders and decoders ``[n_features, d_model]`` of the
        layer's expanded neurons, from inputs ``[n_positions, d_model]`` at the basis's hook.
        """
        architecture = architecture_of(self.model)
        block = self.model.model.layers[layer]
        mlp, phi = block.mlp, mlp_activation(block.mlp)
        _, positions, neurons = self.expanded[self.expanded[:, 0] == layer].T
        # Gemma 2's hook stands before the norm's weight, which neurons read behind.
        weight: Tensor | float = 1.0
        if architecture.hook_input == "ln2.hook_normalized":
            weight = norm_weight(getattr(block, architecture.pre_mlp_norm), architecture)
        gate, up = mlp.gate_proj(inputs * weight), mlp.up_proj(inputs * weight)
        activation = phi(gate) * up
        by_gate, by_up = half_rule_gradients(gate[positions, neurons], up[positions, neurons], phi)
        encoders = (
            by_gate.unsqueeze(1) * mlp.gate_proj.weight[neurons]
            + by_up.unsqueeze(1) * mlp.up_proj.weight[neurons]
        ) * weight
        chosen = activation[positions, neurons]
        decoders = chosen.unsqueeze(1) * mlp.down_proj.weight[:, neurons].T
        if architecture.post_mlp_norm is not None:
            norm = getattr(block, architecture.post_mlp_norm)
            scale = rms_scale(mlp.down_proj(activation), norm_epsilon(norm))
            decoders = decoders * norm_weight(norm, architecture) * scale[positions]
        return chosen, encoders, decoders

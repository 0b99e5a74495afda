"""The neuron basis: MLP neurons as the features of a replacement model, with nothing to train.

A neuron's decoder is its activation times its column of the down projection, passed through the
frozen post-MLP norm where the model has one; its encoder is the half-rule linearisation. Neurons
that are not expanded stay in the reconstruction error of their layer and position, so that a
graph's rows always sum to activations and its scores count what is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.features.half_rule import half_rule_gradients
from circuitdrift.models.architecture import (
    architecture_of,
    mlp_activation,
    norm_epsilon,
    norm_weight,
    rms_scale,
)


@dataclass(frozen=True)
class LayerFeatures:
    """The expanded neurons of one layer.

    Attributes:
        activations: ``[n_features]``.
        encoders: in the MLP's normalised input; ``encoder . input = activation``
            ``[n_features, d_model]``.
        decoders: what each adds to the residual stream ``[n_features, d_model]``.
    """

    activations: Tensor
    encoders: Tensor
    decoders: Tensor


@dataclass(frozen=True)
class NeuronBasis:
    """Chosen neurons of a model on one prompt, behind circuit-tracer's transcoder interface.

    Attributes:
        expanded: (layer, position, neuron) of each, in ascending order ``[n_features, 3]``.
    """

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

    def compute_attribution_components(
        self, mlp_inputs: Tensor, _zero_positions: slice
    ) -> dict[str, Tensor]:
        """What circuit-tracer's attribution asks of a transcoder set.

        Args:
            mlp_inputs: normalised MLP inputs ``[n_layers, n_positions, d_model]``.
        """
        n_layers, n_positions, d_model = mlp_inputs.shape
        d_mlp = self.model.config.intermediate_size
        parts = [self._layer(layer, mlp_inputs[layer]) for layer in range(n_layers)]
        decoders = torch.cat([part.decoders for part in parts])
        layer, position, _ = self.expanded.T
        reconstruction = torch.zeros(n_layers * n_positions, d_model)
        reconstruction.index_add_(0, layer * n_positions + position, decoders)
        activations = torch.sparse_coo_tensor(
            self.expanded.T,
            torch.cat([part.activations for part in parts]),
            (n_layers, n_positions, d_mlp),
            is_coalesced=True,
            check_invariants=False,
        )
        return {
            "activation_matrix": activations,
            "reconstruction": reconstruction.view(n_layers, n_positions, d_model),
            "encoder_vecs": torch.cat([part.encoders for part in parts]),
            "decoder_vecs": decoders,
            "encoder_to_decoder_map": torch.arange(len(self.expanded)),
            "decoder_locations": self.expanded[:, :2].T,
        }

    def compute_skip(self, _layer_id: int, _inputs: Tensor) -> Tensor:
        raise NotImplementedError("neurons have no skip connection")

    def _layer(self, layer: int, inputs: Tensor) -> LayerFeatures:
        chosen = self.expanded[self.expanded[:, 0] == layer]
        architecture = architecture_of(self.model)
        if architecture.hook_input == "mlp.hook_in":
            return layer_features(self.model, layer, inputs, chosen[:, 1], chosen[:, 2])
        # The hook stands before the norm's weight, which neurons read behind.
        norm = getattr(self.model.model.layers[layer], architecture.pre_mlp_norm)
        weight = norm_weight(norm, architecture)
        found = layer_features(self.model, layer, inputs * weight, chosen[:, 1], chosen[:, 2])
        return replace(found, encoders=found.encoders * weight)


@torch.no_grad()
def layer_features(
    model: PreTrainedModel, layer: int, inputs: Tensor, positions: Tensor, neurons: Tensor
) -> LayerFeatures:
    """Activations, encoders and decoders of the neurons ``(positions[i], neurons[i])`` of a layer.

    Args:
        inputs: the layer's normalised MLP inputs ``[n_positions, d_model]``.
    """
    architecture = architecture_of(model)
    block = model.model.layers[layer]
    mlp, phi = block.mlp, mlp_activation(block.mlp)
    gate, up = mlp.gate_proj(inputs), mlp.up_proj(inputs)
    activation = phi(gate) * up
    by_gate, by_up = half_rule_gradients(gate[positions, neurons], up[positions, neurons], phi)
    encoders = (
        by_gate.unsqueeze(1) * mlp.gate_proj.weight[neurons]
        + by_up.unsqueeze(1) * mlp.up_proj.weight[neurons]
    )
    chosen = activation[positions, neurons]
    decoders = chosen.unsqueeze(1) * mlp.down_proj.weight[:, neurons].T
    if architecture.post_mlp_norm is not None:
        norm = getattr(block, architecture.post_mlp_norm)
        scale = rms_scale(mlp.down_proj(activation), norm_epsilon(norm))
        decoders = decoders * norm_weight(norm, architecture) * scale[positions]
    return LayerFeatures(chosen, encoders.detach(), decoders.detach())

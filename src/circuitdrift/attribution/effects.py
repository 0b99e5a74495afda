"""The effect of every neuron at every position on the target, in one linear pass, without a cut.

Effect = activation times the total derivative of the target through the linearised model: frozen
attention patterns and norm scales, and the half-rule through every MLP (RelP, arXiv 2508.21258).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.neurons import half_rule_gradients
from circuitdrift.models.architecture import mlp_activation


@dataclass(frozen=True)
class Effects:
    """Signed effects in logits.

    Attributes:
        neurons: ``[n_prompts, n_targets, n_layers, n_positions, d_mlp]``.
        tokens: of the embeddings ``[n_prompts, n_targets, n_positions]``. They sum to the
            target's value, since a model without biases is linear in them once frozen.
    """

    neurons: Tensor
    tokens: Tensor


@torch.no_grad()
def effects(linear: LinearModel, directions: Tensor) -> Effects:
    """Effects of all neurons and tokens on the targets.

    Args:
        directions: of each target in the final norm's output ``[n_prompts, n_targets, d_model]``.
    """
    gradient = linear.inject_targets(directions)
    per_layer: list[Tensor] = []
    for layer in reversed(range(linear.n_layers)):
        neurons, through_mlp = _through_neurons(linear, layer, gradient)
        per_layer.append(neurons)
        gradient = gradient + through_mlp
        gradient = gradient + linear.through_attention(layer, gradient)
    return Effects(
        neurons=torch.stack(per_layer[::-1], dim=2),
        tokens=(gradient * linear.frozen.embeddings.unsqueeze(1)).sum(-1),
    )


def _through_neurons(linear: LinearModel, layer: int, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Score a layer's neurons, and carry the gradient through them to the residual stream."""
    mlp, frozen = linear.block(layer).mlp, linear.frozen.layers[layer]
    if frozen.after_mlp is not None:
        gradient = gradient * frozen.after_mlp.unsqueeze(1)
    per_unit = gradient @ mlp.down_proj.weight.detach()
    by_gate, by_up = half_rule_gradients(frozen.gate, frozen.up, mlp_activation(mlp))
    through = (per_unit * by_gate.unsqueeze(1)) @ mlp.gate_proj.weight.detach()
    through += (per_unit * by_up.unsqueeze(1)) @ mlp.up_proj.weight.detach()
    scores = per_unit * frozen.activation.unsqueeze(1)
    return scores, through * frozen.before_mlp.unsqueeze(1)

"""The half-rule: a gated MLP neuron as a linear function of its input, exact in value.

A neuron computes a = phi(g) * u with g = w_gate . x and u = w_up . x. Relevance patching (RelP,
arXiv 2508.21258) treats phi(g)/g as a constant gain and halves the gradient of the product:

    da/dg := 1/2 * phi(g)/g * u        da/du := 1/2 * phi(g)

so that the encoder e = da/dg * w_gate + da/du * w_up satisfies e . x = a exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SMALLEST_GATE = 1e-6


def activation_gain(gate: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
    """phi(g)/g elementwise, its limit phi'(0) taken by a central difference where g is near 0."""
    near_zero = gate.abs() < _SMALLEST_GATE
    safe = torch.where(near_zero, torch.ones_like(gate), gate)
    step = torch.tensor(1e-3, dtype=gate.dtype, device=gate.device)
    limit = (phi(step) - phi(-step)) / (2 * step)
    return torch.where(near_zero, limit, phi(safe) / safe)


def half_rule_gradients(
    gate: Tensor, up: Tensor, phi: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The linearised da/dg and da/du of every neuron.

    Args:
        gate: g = w_gate . x, any shape.
        up: u = w_up . x, the same shape.
        phi: the gate's nonlinearity.

    Returns:
        Two tensors of that shape; multiplied by g and by u they sum to the activation.
    """
    gain = activation_gain(gate, phi)
    return 0.5 * gain * up, 0.5 * gain * gate

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from circuitdrift.features.half_rule import activation_gain, half_rule_gradients


def relu_squared(x: torch.Tensor) -> torch.Tensor:
    return x.relu() ** 2


def test_gradients_worked_by_hand() -> None:
    # g = 2, u = 3, phi = relu^2: a = 12, phi(g)/g = 2, da/dg = 1/2 * 2 * 3, da/du = 1/2 * 4.
    by_gate, by_up = half_rule_gradients(torch.tensor([2.0]), torch.tensor([3.0]), relu_squared)
    assert by_gate.item() == pytest.approx(3)
    assert by_up.item() == pytest.approx(2)
    assert by_gate.item() * 2 + by_up.item() * 3 == pytest.approx(12)


@pytest.mark.parametrize("phi", [functional.silu, functional.gelu])
def test_gradients_times_inputs_are_the_activation(phi) -> None:  # type: ignore[no-untyped-def]
    gate, up = torch.randn(2, 200, generator=torch.Generator().manual_seed(0))
    by_gate, by_up = half_rule_gradients(gate, up, phi)
    torch.testing.assert_close(by_gate * gate + by_up * up, phi(gate) * up)


@pytest.mark.parametrize("phi", [functional.silu, functional.gelu])
def test_gain_at_zero_is_its_limit(phi) -> None:  # type: ignore[no-untyped-def]
    gain = activation_gain(torch.tensor([0.0, 1e-9, -1e-9]), phi)
    torch.testing.assert_close(gain, torch.full((3,), 0.5), atol=1e-4, rtol=0)

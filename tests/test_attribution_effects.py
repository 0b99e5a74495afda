"""The half-rule by hand, and effects against their oracles: removal from the linear model, and sums
over the paths of a whole graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circuitdrift.attribution.edges import adjacency, components_of
from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.frozen import freeze
from circuitdrift.attribution.growth import strongest
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.neurons import (
    NeuronBasis,
    activation_gain,
    half_rule_gradients,
)
from linearised import ARCHITECTURES, random_model, run_half_rule

PROMPT = [2, 5, 7, 9, 11, 4, 8]


def directions(model, n: int = 1) -> Tensor:
    rows = model.lm_head.weight.detach()
    return torch.stack([rows[3 + target] - rows[30 + target] for target in range(n)])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_token_effects_sum_to_the_target(architecture: str) -> None:
    model = random_model(architecture)
    found = effects(LinearModel(model, freeze(model, [PROMPT])), directions(model).unsqueeze(0))
    logits = model(torch.tensor([PROMPT])).logits[0, -1]
    torch.testing.assert_close(found.tokens.sum(), logits[3] - logits[30], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_an_effect_is_what_the_target_loses_with_the_neuron(architecture: str) -> None:
    model = random_model(architecture)
    direction = directions(model)
    frozen = freeze(model, [PROMPT])
    found = effects(LinearModel(model, frozen), direction.unsqueeze(0)).neurons[0, 0]
    whole = run_half_rule(model, frozen) @ direction[0]
    for node in [(0, 6, 3), (0, 0, 1), (1, 5, 19), (2, 6, 0), (1, 2, 7)]:
        without = run_half_rule(model, frozen, silenced=node) @ direction[0]
        torch.testing.assert_close(found[node], whole - without, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_effects_are_paths_summed_over_a_graph_that_expands_everything(architecture: str) -> None:
    model = random_model(architecture)
    linear = LinearModel(model, freeze(model, [PROMPT]))
    direction = directions(model)
    found = effects(linear, direction.unsqueeze(0)).neurons[0, 0]
    components = components_of(linear, NeuronBasis(model, strongest(found, found.numel())))
    A = adjacency(linear, components, direction, 1.0)
    # A row holds contributions to an activation; per unit of it they are A[t, s] / a_t.
    scale = torch.ones(len(A))
    scale[: len(components.activations)] = components.activations
    paths = torch.linalg.inv(torch.eye(len(A)).double() - (A / scale.unsqueeze(1)).double())
    summed = paths[-1, : found.numel()].float()
    torch.testing.assert_close(summed, found.flatten(), atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_batches_of_prompts_and_targets_equal_single_ones() -> None:
    model = random_model("Gemma3ForCausalLM")
    prompts = [PROMPT, [2, 9, 4], [2]]
    both = directions(model, 2)
    batched = effects(LinearModel(model, freeze(model, prompts)), both.expand(3, -1, -1))
    for index, prompt in enumerate(prompts):
        linear = LinearModel(model, freeze(model, [prompt]))
        for target in range(2):
            single = effects(linear, both[target].view(1, 1, -1))
            torch.testing.assert_close(
                batched.neurons[index, target, :, : len(prompt)], single.neurons[0, 0]
            )
            assert not batched.neurons[index, target, :, len(prompt) :].any()


def test_effects_leave_no_hook_behind() -> None:
    model = random_model("LlamaForCausalLM")
    freeze(model, [PROMPT])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_bad_input_is_refused() -> None:
    model = random_model("LlamaForCausalLM")
    with pytest.raises(ValueError, match="at least one token"):
        freeze(model, [[]])
    model.model.layers[0].mlp.up_proj.bias = torch.nn.Parameter(torch.zeros(20))
    with pytest.raises(ValueError, match="without biases"):
        freeze(model, [PROMPT])


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

"""Activations replaced and recorded in real models, and targets read off them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuit_samples import PROMPT
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.interventions.hooks import (
    Edit,
    edited_targets,
    record,
    recorded_activations,
    replaced_activations,
    results,
    targets,
)
from linearised import ARCHITECTURES, random_model

SHORT, LONG = (2, 9, 4), (2, 5, 7, 9, 11, 8)


def prompt(
    tokens: Sequence[int], answer: int = 3, others: Sequence[int] = (30, 17)
) -> TracedPrompt:
    return replace(
        PROMPT,
        id=f"p{len(tokens)}",
        tokens=tuple(tokens),
        segments=("start", *["word"] * (len(tokens) - 2), "last"),
        answer=answer,
        others=tuple(others),
    )


@torch.no_grad()
def by_hand(model: PreTrainedModel, asked: TracedPrompt) -> Tensor:
    logits = model(torch.tensor([asked.tokens])).logits[0, -1]
    return logits[asked.answer] - logits[list(asked.others)].mean()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_target_is_the_answers_logit_minus_the_others_mean(architecture: str) -> None:
    model = random_model(architecture)
    asked = [prompt(SHORT), prompt(LONG, answer=9, others=(1,))]
    expected = torch.stack([by_hand(model, one) for one in asked])
    torch.testing.assert_close(targets(model, asked), expected)


def test_a_target_is_capped_where_the_models_logits_are() -> None:
    model = random_model("Gemma2ForCausalLM")
    plain = by_hand(model, prompt(LONG))
    model.config.final_logit_softcapping = 2.0
    capped = targets(model, [prompt(LONG)])[0]
    torch.testing.assert_close(capped, by_hand(model, prompt(LONG)))
    assert abs(capped - plain) > 0.01


@torch.no_grad()
def test_replacing_nothing_or_all_by_itself_changes_no_bit(tiny_model: PreTrainedModel) -> None:
    tokens = torch.tensor([LONG])
    with recorded_activations(tiny_model) as seen:
        whole = tiny_model(tokens).logits
    assert sorted(seen) == [0, 1]
    own = torch.cat([seen[0], seen[1]])
    everywhere = torch.ones_like(own, dtype=torch.bool)
    for mask, values in ((everywhere, own), (~everywhere, torch.full_like(own, 5.0))):
        with replaced_activations(tiny_model, [Edit(prompt(LONG), mask, values)]):
            assert torch.equal(tiny_model(tokens).logits, whole)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_neuron_set_to_zero_is_one_that_writes_nothing(architecture: str) -> None:
    model = random_model(architecture)
    asked = prompt(LONG)
    (activations,) = record(model, [asked], 1).activations
    mask = torch.zeros_like(activations, dtype=torch.bool)
    mask[1, :, 7] = True
    whole = targets(model, [asked])
    ablated = edited_targets(model, [Edit(asked, mask, torch.zeros_like(activations))])
    model.model.layers[1].mlp.down_proj.weight[:, 7] = 0
    torch.testing.assert_close(ablated, targets(model, [asked]))
    assert abs(ablated - whole).item() > 1e-3


@torch.no_grad()
def test_a_recording_is_what_the_down_projection_reads() -> None:
    model = random_model("LlamaForCausalLM")
    asked = [prompt(SHORT), prompt(LONG)]
    together, alone = record(model, asked, 2), record(model, asked, 1)
    mlp, inputs = model.model.layers[0].mlp, []
    with mlp.register_forward_pre_hook(lambda _module, values: inputs.append(values[0])):
        targets(model, asked[1:])
    expected = mlp.act_fn(mlp.gate_proj(inputs[0])) * mlp.up_proj(inputs[0])
    torch.testing.assert_close(together.activations[1][0], expected[0])
    assert [tuple(a.shape) for a in together.activations] == [(3, 3, 20), (3, 6, 20)]
    torch.testing.assert_close(together.activations, alone.activations)
    torch.testing.assert_close(together.targets, alone.targets)


def test_edits_of_several_lengths_share_passes_in_order_without_touching_each_other() -> None:
    model = random_model("Gemma3ForCausalLM")
    trials = []
    for seed, asked in enumerate([prompt(SHORT), prompt(LONG), prompt(SHORT)]):
        generator = torch.Generator().manual_seed(seed)
        shape = (3, len(asked.tokens), 20)
        mask = torch.rand(shape, generator=generator) < 0.5
        edit = Edit(asked, mask, torch.randn(shape, generator=generator))
        trials.append(({"seed": seed}, edit))
    rows = results(model, trials, "value", 2)
    assert [row["seed"] for row in rows] == [0, 1, 2]
    alone = [edited_targets(model, [edit]).item() for _, edit in trials]
    assert [row["value"] for row in rows] == pytest.approx(alone, abs=1e-5)
    assert alone[0] != alone[2]
    assert results(model, [], "value", 2) == []


@torch.no_grad()
def test_no_hook_outlives_its_context(tiny_model: PreTrainedModel) -> None:
    everywhere = torch.ones(2, 7, 48, dtype=torch.bool)
    with (
        pytest.raises(ValueError, match="7 positions in a pass of 6"),
        replaced_activations(tiny_model, [Edit(prompt(LONG), everywhere, torch.zeros(2, 7, 48))]),
        recorded_activations(tiny_model),
    ):
        tiny_model(torch.tensor([LONG]))
    modules = tiny_model.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)

"""Activations replaced and recorded in real models, and targets read off them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.interventions.activations import (
    Replacement,
    recorded_activations,
    replaced_activations,
)
from circuitdrift.interventions.prompts import TargetPrompt
from circuitdrift.interventions.runs import Edit, edited_targets, record, results, targets
from linearised import ARCHITECTURES, random_model

SHORT, LONG = (2, 9, 4), (2, 5, 7, 9, 11, 8)


def prompt(
    tokens: Sequence[int], answer: int = 3, others: Sequence[int] = (30, 17)
) -> TargetPrompt:
    return TargetPrompt(
        id=f"p{len(tokens)}",
        type="simple",
        word="blarf",
        template="{word}",
        tokens=tuple(tokens),
        segments=("start", *["word"] * (len(tokens) - 2), "last"),
        answer=answer,
        others=tuple(others),
    )


@torch.no_grad()
def logits(model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    return model(torch.tensor([list(tokens)])).logits[0, -1]


def no_edit(model: PreTrainedModel, asked: TargetPrompt) -> Edit:
    (activations,) = record(model, [asked], 1).activations
    return Edit(asked, torch.zeros_like(activations, dtype=torch.bool), activations)


def has_hooks(model: PreTrainedModel) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_target_is_the_answers_logit_minus_the_others_mean(architecture: str) -> None:
    model = random_model(architecture)
    asked = [prompt(SHORT), prompt(LONG, answer=9, others=(1,))]
    found = targets(model, asked)
    short, long = logits(model, SHORT), logits(model, LONG)
    torch.testing.assert_close(found[0], short[3] - (short[30] + short[17]) / 2)
    torch.testing.assert_close(found[1], long[9] - long[1])


def test_a_target_is_capped_where_the_models_logits_are() -> None:
    model = random_model("Gemma2ForCausalLM")
    plain = logits(model, LONG)
    model.config.final_logit_softcapping = 2.0
    found = targets(model, [prompt(LONG)])[0]
    capped = logits(model, LONG)
    torch.testing.assert_close(found, capped[3] - (capped[30] + capped[17]) / 2)
    assert abs(found - (plain[3] - (plain[30] + plain[17]) / 2)) > 0.01


def test_replacing_nothing_changes_no_bit(tiny_model: PreTrainedModel) -> None:
    tokens = torch.tensor([LONG])
    whole = tiny_model(tokens).logits
    nowhere = Replacement(torch.zeros(1, 6, 48, dtype=torch.bool), torch.full((1, 6, 48), 5.0))
    with replaced_activations(tiny_model, {0: nowhere, 1: nowhere}):
        assert torch.equal(tiny_model(tokens).logits, whole)
    with replaced_activations(tiny_model, {}):
        assert torch.equal(tiny_model(tokens).logits, whole)


def test_replacing_all_by_themselves_changes_no_bit(tiny_model: PreTrainedModel) -> None:
    tokens = torch.tensor([LONG])
    with recorded_activations(tiny_model) as seen:
        whole = tiny_model(tokens).logits
    own = {layer: Replacement(torch.ones_like(a, dtype=torch.bool), a) for layer, a in seen.items()}
    assert sorted(own) == [0, 1]
    with replaced_activations(tiny_model, own):
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
    found = edited_targets(model, [Edit(asked, mask, torch.zeros_like(activations))])
    model.model.layers[1].mlp.down_proj.weight[:, 7] = 0
    torch.testing.assert_close(found, targets(model, [asked]))
    assert abs(found - whole).item() > 1e-3


def test_a_recording_is_what_the_down_projection_reads() -> None:
    model = random_model("LlamaForCausalLM")
    asked = [prompt(SHORT), prompt(LONG)]
    together, alone = record(model, asked, 2), record(model, asked, 1)
    mlp, read = model.model.layers[0].mlp, []
    handle = mlp.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    with torch.no_grad():
        targets(model, asked[1:])
        by_hand = mlp.act_fn(mlp.gate_proj(read[0])) * mlp.up_proj(read[0])
    handle.remove()
    torch.testing.assert_close(together.activations[1][0], by_hand[0])
    assert [tuple(a.shape) for a in together.activations] == [(3, 3, 20), (3, 6, 20)]
    for one, other in zip(together.activations, alone.activations, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(together.targets, alone.targets)


def test_edits_of_several_lengths_share_a_pass_without_touching_each_other() -> None:
    model = random_model("Gemma3ForCausalLM")
    edits = []
    for seed, asked in enumerate([prompt(SHORT), prompt(LONG), prompt(SHORT)]):
        generator = torch.Generator().manual_seed(seed)
        shape = (3, len(asked.tokens), 20)
        mask = torch.rand(shape, generator=generator) < 0.5
        edits.append(Edit(asked, mask, torch.randn(shape, generator=generator)))
    together = edited_targets(model, edits)
    for index, edit in enumerate(edits):
        torch.testing.assert_close(together[index], edited_targets(model, [edit])[0])
    assert together[0] != together[2]


def test_all_activations_of_a_model_that_differs_in_its_gates_carry_its_target() -> None:
    """Attention and down projections are shared, so all that differs passes through the neurons."""
    base, tuned = random_model("Gemma3ForCausalLM"), random_model("Gemma3ForCausalLM")
    with torch.no_grad():
        for block in tuned.model.layers:
            block.mlp.gate_proj.weight.mul_(-1.5)
    asked = prompt(LONG)
    recording = record(tuned, [asked], 1)
    values = recording.activations[0]
    everything = torch.ones_like(values, dtype=torch.bool)
    first_layer = everything & (torch.arange(3) == 0).view(3, 1, 1)
    whole = edited_targets(base, [Edit(asked, everything, values)])
    part = edited_targets(base, [Edit(asked, first_layer, values)])
    before = targets(base, [asked])
    torch.testing.assert_close(whole, recording.targets)
    assert abs(before - recording.targets) > 0.1
    assert len({before.item(), part.item(), whole.item()}) == 3


def test_results_keep_rows_and_order_over_batches() -> None:
    model = random_model("LlamaForCausalLM")
    asked = [prompt(SHORT), prompt(LONG), prompt((2, 8))]
    trials = [({"prompt": one.id}, no_edit(model, one)) for one in asked]
    rows = list(results(model, trials, "value", 2))
    assert [row["prompt"] for row in rows] == ["p3", "p6", "p2"]
    assert [row["value"] for row in rows] == pytest.approx(targets(model, asked).tolist(), abs=1e-5)
    assert list(results(model, [], "value", 2)) == []


def test_no_hook_outlives_its_context(tiny_model: PreTrainedModel) -> None:
    misfit = Replacement(torch.ones(1, 2, 48, dtype=torch.bool), torch.zeros(1, 2, 48))
    with (
        pytest.raises(ValueError, match=r"layer 1 has activations \(1, 6, 48\)"),
        replaced_activations(tiny_model, {1: misfit}),
        recorded_activations(tiny_model),
    ):
        tiny_model(torch.tensor([LONG]))
    assert not has_hooks(tiny_model)
    with (
        pytest.raises(IndexError),
        replaced_activations(tiny_model, {0: misfit, 2: misfit}),
    ):
        pass
    assert not has_hooks(tiny_model)
    edited_targets(tiny_model, [no_edit(tiny_model, prompt(LONG))])
    assert not has_hooks(tiny_model)


def test_values_must_have_the_shape_of_their_mask() -> None:
    with pytest.raises(ValueError, match="needs values of its shape"):
        Replacement(torch.ones(1, 2, 3, dtype=torch.bool), torch.zeros(1, 2, 1))

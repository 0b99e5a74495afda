"""Activations replaced and recorded in real models, and answers read off them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor
from transformers import PreTrainedModel

from circuit_samples import PROMPT
from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.frozen import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.trace import target_directions
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.interventions.hooks import (
    Edit,
    answer_logits,
    edit,
    record,
    recorded_activations,
    replaced_activations,
    run_edits,
    target,
)
from linearised import ARCHITECTURES, random_model

SHORT, LONG = (2, 9, 4), (2, 5, 7, 9, 11, 8)


def prompt(tokens: Sequence[int], answers: Sequence[int] = (30, 3, 17)) -> TracedPrompt:
    return replace(
        PROMPT,
        id=f"p{len(tokens)}",
        tokens=tuple(tokens),
        segments=("start", *["word"] * (len(tokens) - 2), "last"),
        answers=tuple(answers),
        answer=1,
    )


def everywhere(mask: Tensor) -> dict[int, Tensor]:
    return dict(enumerate(mask))


def logits_under(model: PreTrainedModel, *edits: Edit) -> list[Tensor]:
    return [logits for _, _, logits in run_edits(model, (({}, one) for one in edits), 8)]


@torch.no_grad()
def by_hand(model: PreTrainedModel, asked: TracedPrompt) -> Tensor:
    return model(torch.tensor([asked.tokens])).logits[0, -1, list(asked.answers)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_of_prompts_of_several_lengths_are_read_at_their_ends(architecture: str) -> None:
    model = random_model(architecture)
    asked = [prompt(SHORT), prompt(LONG, answers=(9, 1))]
    expected = [by_hand(model, one) for one in asked]
    torch.testing.assert_close(answer_logits(model, asked), expected)
    assert target(asked[1], expected[1]) == pytest.approx(float(expected[1][1] - expected[1][0]))


def test_a_target_is_the_answers_logit_minus_the_others_mean() -> None:
    # 5 - (1 + 2) / 2
    assert target(prompt(SHORT), torch.tensor([1.0, 5, 2])) == 3.5


def test_logits_are_capped_where_the_models_are() -> None:
    model = random_model("Gemma2ForCausalLM")
    plain = by_hand(model, prompt(LONG))
    model.config.final_logit_softcapping = 2.0
    (capped,) = answer_logits(model, [prompt(LONG)])
    torch.testing.assert_close(capped, by_hand(model, prompt(LONG)))
    assert (capped - plain).abs().max() > 0.01


@torch.no_grad()
def test_replacing_nothing_or_all_by_itself_changes_no_bit(tiny_model: PreTrainedModel) -> None:
    tokens = torch.tensor([LONG])
    with recorded_activations(tiny_model) as seen:
        whole = tiny_model(tokens).logits
    assert sorted(seen) == [0, 1]
    own = torch.cat([seen[0], seen[1]])
    all_of_it = torch.ones_like(own, dtype=torch.bool)
    for mask, values in ((all_of_it, own), (~all_of_it, torch.full_like(own, 5.0))):
        with replaced_activations(tiny_model, [Edit(prompt(LONG), everywhere(mask), values)]):
            assert torch.equal(tiny_model(tokens).logits, whole)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_neuron_set_to_zero_is_one_that_writes_nothing(architecture: str) -> None:
    model = random_model(architecture)
    asked = prompt(LONG)
    places = torch.zeros(3, 1, 20, dtype=torch.bool)
    places[1, 0, 7] = True
    one = edit(asked, places, torch.zeros(len(LONG), dtype=torch.int64), torch.zeros(3, 6, 20))
    assert list(one.masks) == [1]  # no other layer costs anything
    (whole,), (ablated,) = answer_logits(model, [asked]), logits_under(model, one)
    model.model.layers[1].mlp.down_proj.weight[:, 7] = 0
    torch.testing.assert_close(ablated, answer_logits(model, [asked])[0])
    assert (ablated - whole).abs().max() > 1e-3


@torch.no_grad()
def test_replaced_activations_are_the_donors_and_all_else_follows_from_them() -> None:
    own, donor = (random_model("LlamaForCausalLM", seed) for seed in (0, 1))
    asked, index = [prompt(LONG), prompt(SHORT)], torch.tensor([0, 1, 1, 1, 1, 0])
    recording = record(donor, asked, 2)
    places = torch.zeros(3, 2, 20, dtype=torch.bool)
    places[0, 1, 4] = places[2, 0, 5:] = True
    edits = [
        edit(one, places, index[: len(one.tokens)], values)
        for one, values in zip(asked, recording.activations, strict=True)
    ]
    before = record(own, asked, 2).activations
    with replaced_activations(own, edits), recorded_activations(own) as seen:
        answer_logits(own, asked)
    for row, (values, plain) in enumerate(zip(recording.activations, before, strict=True)):
        n_positions = values.shape[1]
        mask = places[:, index[:n_positions]]
        after = torch.stack([seen[layer][row, :n_positions] for layer in range(3)])
        assert torch.equal(after[mask], values[mask])
        # Below the edit nothing moves; above it what reads it does.
        torch.testing.assert_close(after[0][~mask[0]], plain[0][~mask[0]])
        assert not torch.allclose(after[1], plain[1])


@torch.no_grad()
def test_a_recording_is_what_the_down_projection_reads() -> None:
    model = random_model("LlamaForCausalLM")
    asked = [prompt(SHORT), prompt(LONG)]
    together, alone = record(model, asked, 2), record(model, asked, 1)
    mlp, inputs = model.model.layers[0].mlp, []
    with mlp.register_forward_pre_hook(lambda _module, values: inputs.append(values[0])):
        answer_logits(model, asked[1:])
    expected = mlp.act_fn(mlp.gate_proj(inputs[0])) * mlp.up_proj(inputs[0])
    torch.testing.assert_close(together.activations[1][0], expected[0])
    assert [tuple(a.shape) for a in together.activations] == [(3, 3, 20), (3, 6, 20)]
    torch.testing.assert_close(together.activations, alone.activations)
    torch.testing.assert_close(together.logits, alone.logits)


def test_edits_of_several_lengths_share_passes_in_order_without_touching_each_other() -> None:
    model = random_model("Gemma3ForCausalLM")
    trials = []
    for seed, asked in enumerate([prompt(SHORT), prompt(LONG), prompt(SHORT)]):
        generator = torch.Generator().manual_seed(seed)
        shape = (3, len(asked.tokens), 20)
        mask = torch.rand(shape, generator=generator) < 0.5
        values = torch.randn(shape, generator=generator)
        trials.append(({"seed": seed}, Edit(asked, everywhere(mask), values)))
    results = list(run_edits(model, trials, 2))
    assert [(row["seed"], one.id) for row, one, _ in results] == [(0, "p3"), (1, "p6"), (2, "p3")]
    alone = [logits_under(model, one)[0] for _, one in trials]
    torch.testing.assert_close([logits for _, _, logits in results], alone)
    assert not torch.allclose(alone[0], alone[2])
    assert list(run_edits(model, [], 2)) == []


@torch.no_grad()
def test_effects_rank_what_nodes_do(tiny_model: PreTrainedModel) -> None:
    """Linear effects against what the target loses when a node is set to 0, in the real model."""
    asked = prompt(LONG, answers=(40, 12, 33))
    direction = target_directions(asked, tiny_model.lm_head.weight)[asked.answer]
    linear = LinearModel(tiny_model, freeze(tiny_model, [LONG]))
    effect = effects(linear, direction.view(1, 1, -1)).neurons[0, 0]  # [n_layers, n_positions, d]
    nodes = effect.abs().flatten().argsort(descending=True)[:30]
    edits = []
    for node in nodes:
        mask = torch.zeros(effect.numel(), dtype=torch.bool)
        mask[node] = True
        edits.append(Edit(asked, everywhere(mask.view_as(effect)), torch.zeros_like(effect)))
    whole = target(asked, by_hand(tiny_model, asked))
    lost = [whole - target(asked, logits) for logits in logits_under(tiny_model, *edits)]
    assert spearmanr(effect.flatten()[nodes], lost).statistic > 0.8


@torch.no_grad()
def test_no_hook_outlives_its_context(tiny_model: PreTrainedModel) -> None:
    mask = torch.ones(2, 7, 48, dtype=torch.bool)
    with (
        pytest.raises(ValueError, match="7 positions in a pass of 6"),
        replaced_activations(
            tiny_model, [Edit(prompt(LONG), everywhere(mask), torch.zeros(2, 7, 48))]
        ),
        recorded_activations(tiny_model),
    ):
        tiny_model(torch.tensor([LONG]))
    modules = tiny_model.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)

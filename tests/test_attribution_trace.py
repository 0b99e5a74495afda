from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from circuit_samples import PROMPT
from circuitdrift.attribution.edges import adjacency, components_of
from circuitdrift.attribution.frozen import freeze
from circuitdrift.attribution.growth import decoder_norms, engine_for, loudest, strongest
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.neurons import NeuronBasis
from circuitdrift.attribution.trace import (
    choose_prompts,
    segment_tokens,
    target_direction,
    tokenise,
    trace_circuits,
)
from circuitdrift.core.prompts import Prompt
from circuitdrift.params import Attribution, load_params

SETTINGS: Attribution = load_params(
    Path(__file__).resolve().parents[1] / "params.yaml"
).attribution.model_copy(
    update={
        "discovery_prompts_per_word": 2,
        "evaluation_prompts_per_word": 1,
        "control_prompts": 2,
        "graph_prompts_per_word": 1,
        "graph_control_prompts": 1,
        "feature_nodes": 40,
        "candidates_per_place": 12,
    }
)
TASK = Prompt(
    id="simple-blarf-discovery-0",
    role="discovery",
    type="simple",
    word="blarf",
    template="To feel {word} is to feel",
    text="To feel blarf is to feel",
    start=8,
    answer="happy",
    others=("sad", "fast"),
)
CONTROL = replace(
    TASK,
    id="control-00",
    role="control",
    type=None,
    word=None,
    text="The capital of France is",
    start=None,
)


def test_the_first_prompts_of_each_word_and_role_are_chosen() -> None:
    near = replace(TASK, id="near", role="evaluation")
    prompts = [
        *(replace(TASK, id=name) for name in (TASK.id, "second", "third")),
        replace(TASK, id="gleem", word="gleem"),
        *(replace(near, id=name) for name in (near.id, "near-1")),
        *(replace(CONTROL, id=name) for name in (CONTROL.id, "control-01", "control-02")),
        replace(TASK, id="reverse", role="reverse"),
    ]
    chosen = choose_prompts(prompts, SETTINGS)
    assert {prompt.id: with_graph for prompt, with_graph in chosen.items()} == {
        TASK.id: True,
        "second": False,
        "gleem": True,
        "near": False,
        CONTROL.id: True,
        "control-01": False,
    }


def test_segments_follow_the_word(tiny_tokenizer: Tokenizer) -> None:
    tokens, segments = segment_tokens(tiny_tokenizer, TASK)
    inside = [token for token, part in zip(tokens, segments, strict=True) if part == "word"]
    assert tiny_tokenizer.decode(inside).strip() == "blarf"
    order = [part for index, part in enumerate(segments) if part != segments[index - 1]]
    assert order == ["start", "before word", "word", "after word", "last"]
    _, plain = segment_tokens(tiny_tokenizer, CONTROL)
    assert set(plain) == {"start", "before word", "last"}


def test_a_traced_prompt_keeps_what_the_prompt_is_and_a_control_takes_the_bases_answers(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer
) -> None:
    task, control = tokenise([TASK, CONTROL], tiny_model, tiny_tokenizer)
    kept = ("id", "role", "type", "word", "template")
    assert [getattr(task, name) for name in kept] == [getattr(TASK, name) for name in kept]
    answers = [f" {text}" for text in (TASK.answer, *TASK.others)]
    assert [tiny_tokenizer.decode([i]) for i in (task.answer, *task.others)] == answers
    with torch.no_grad():
        logits = tiny_model(torch.tensor([control.tokens])).logits[0, -1]
    assert (control.answer, *control.others) == tuple(logits.argsort(descending=True)[:3].tolist())


def test_a_targets_direction_is_right_minus_the_mean_of_the_others() -> None:
    unembedding = torch.tensor([[1.0, 0], [0, 2], [4, 4]])
    direction = target_direction(replace(PROMPT, answer=0, others=(1, 2)), unembedding)
    assert direction.tolist() == [1 - 2, 0 - 3]


def test_strongest_takes_the_largest_magnitudes_in_order() -> None:
    effects = torch.tensor([[[0.0, -5], [1, 0]], [[4, 0], [0, 2]]])
    assert strongest(effects, 3).tolist() == [[0, 0, 1], [1, 0, 0], [1, 1, 1]]
    assert len(strongest(effects, 100)) == 8


def test_loudest_takes_the_longest_vectors_of_each_place(tiny_model: PreTrainedModel) -> None:
    linear = LinearModel(tiny_model, freeze(tiny_model, [[5, 6, 7]]))
    chosen = loudest(linear, 2, decoder_norms(tiny_model))
    assert chosen.tolist() == sorted(chosen.tolist())
    assert len(chosen) == linear.n_layers * 3 * 2
    mlp, frozen = linear.block(1).mlp, linear.frozen.layers[1]
    written = (mlp.act_fn(frozen.gate) * frozen.up)[0, 2].abs() * mlp.down_proj.weight.norm(dim=0)
    here = [unit for layer, position, unit in chosen.tolist() if (layer, position) == (1, 2)]
    assert here == sorted(written.topk(2).indices.tolist())


@pytest.mark.parametrize("selection", ["influence", "effect"])
def test_circuits_of_both_engines_agree(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer, selection: str
) -> None:
    prompts = tokenise([TASK, CONTROL], tiny_model, tiny_tokenizer)
    settings = SETTINGS.model_copy(update={"selection": selection})
    task, control = trace_circuits(tiny_model, prompts, settings, {TASK.id})
    assert [task.prompt, control.prompt] == prompts
    assert control.graph is None
    with torch.no_grad():
        logits = tiny_model(torch.tensor([task.prompt.tokens])).logits[0, -1]
    value = logits[task.prompt.answer] - logits[list(task.prompt.others)].mean()
    assert task.value == pytest.approx(value.item(), abs=1e-4)
    assert task.token_effects.sum() == pytest.approx(task.value, abs=1e-4)

    other = settings.model_copy(update={"engine": "circuit-tracer"})
    for _ in range(2):  # a model stays usable, for it is the next checkpoint's too
        (theirs,) = trace_circuits(tiny_model, prompts[:1], other, {TASK.id})
        assert task.graph is not None
        assert theirs.graph is not None
        assert np.array_equal(theirs.graph.nodes, task.graph.nodes)
        assert np.array_equal(theirs.graph.edges, task.graph.edges)
        np.testing.assert_allclose(theirs.graph.weights, task.graph.weights, rtol=1e-4, atol=1e-5)
        assert theirs.graph.scores.replacement == pytest.approx(task.graph.scores.replacement)


def test_prompts_traced_together_and_alone_have_the_same_circuits(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer
) -> None:
    longer = replace(TASK, id="longer", text="Everyone knows that to feel blarf is to feel")
    prompts = tokenise([TASK, longer], tiny_model, tiny_tokenizer)
    together = trace_circuits(tiny_model, prompts, SETTINGS)
    for prompt, circuit in zip(prompts, together, strict=True):
        (alone,) = trace_circuits(tiny_model, [prompt], SETTINGS)
        np.testing.assert_allclose(circuit.effects, alone.effects, rtol=1e-4, atol=1e-5)
        assert circuit.value == pytest.approx(alone.value, abs=1e-4)


def test_a_graph_grown_by_influence_folds_what_it_leaves_out(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer
) -> None:
    (prompt,) = tokenise([TASK], tiny_model, tiny_tokenizer)
    linear = LinearModel(tiny_model, freeze(tiny_model, [prompt.tokens]))
    direction = target_direction(prompt, tiny_model.lm_head.weight.detach())
    grow = engine_for(tiny_model, SETTINGS)
    grown = grow(linear, direction, torch.empty(0))
    assert len(grown.expanded) == SETTINGS.feature_nodes
    sums = grown.A[: len(grown.expanded)].sum(1)
    torch.testing.assert_close(sums, grown.activations, rtol=1e-4, atol=1e-5)
    components = components_of(linear, NeuronBasis(tiny_model, grown.expanded))
    direct = adjacency(linear, components, direction.unsqueeze(0), SETTINGS.max_memory_gb)
    torch.testing.assert_close(grown.A, direct, rtol=1e-4, atol=1e-5)

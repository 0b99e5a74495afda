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
    target_directions,
    tokenise,
    trace_circuits,
)
from circuitdrift.circuits.circuit import NodeKind
from circuitdrift.core.prompts import Prompt
from circuitdrift.params import Attribution, load_params

SETTINGS: Attribution = load_params(
    Path(__file__).resolve().parents[1] / "params.yaml"
).attribution.model_copy(
    update={
        "near_prompts_per_word": 2,
        "discovery_prompts_per_word": 1,
        "control_prompts": 2,
        "graph_prompts_per_word": 1,
        "graph_control_prompts": 1,
        "feature_nodes": 40,
        "candidates_per_place": 12,
    }
)
TASK = Prompt(
    id="simple-blarf-near-0",
    role="near",
    type="simple",
    word="blarf",
    template="To feel {word} is to feel",
    text="To feel blarf is to feel",
    start=8,
    answer="fast",
    answers=("happy", "sad", "fast"),
)
CONTROL = replace(
    TASK,
    id="control-00",
    role="control",
    type=None,
    word=None,
    text="The capital of France is",
    start=None,
    answer="Paris",
    answers=(),
)


def test_the_first_prompts_of_each_word_and_role_are_chosen() -> None:
    found_on = replace(TASK, id="discovery", role="discovery")
    prompts = [
        *(replace(TASK, id=name) for name in (TASK.id, "second", "third")),
        replace(TASK, id="gleem", word="gleem"),
        *(replace(found_on, id=name) for name in (found_on.id, "discovery-1")),
        *(replace(CONTROL, id=name) for name in (CONTROL.id, "control-01", "control-02")),
        replace(TASK, id="reverse", role="reverse"),
    ]
    chosen = choose_prompts(prompts, SETTINGS)
    assert {prompt.id: with_graph for prompt, with_graph in chosen.items()} == {
        TASK.id: True,
        "second": False,
        "gleem": True,
        "discovery": False,
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
    assert [tiny_tokenizer.decode([i]) for i in task.answers] == [f" {a}" for a in TASK.answers]
    assert (task.answer, task.n_targets) == (2, 2)
    with torch.no_grad():
        logits = tiny_model(torch.tensor([control.tokens])).logits[0, -1]
    assert control.answers == tuple(logits.argsort(descending=True)[:3].tolist())
    assert (control.answer, control.n_targets) == (0, 1)


def test_a_targets_direction_is_its_answer_minus_the_mean_of_the_others() -> None:
    unembedding = torch.tensor([[1.0, 0], [0, 2], [4, 4]])
    directions = target_directions(replace(PROMPT, answers=(0, 1, 2)), unembedding)
    assert directions.tolist() == [[1 - 2, 0 - 3], [0 - 2.5, 2 - 2], [4 - 0.5, 4 - 1]]
    assert directions.sum(0).tolist() == [0, 0]


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
    answers = logits[list(task.prompt.answers)]
    values = [a.item() - (answers.sum() - a).item() / 2 for a in answers]
    assert task.values.tolist() == pytest.approx(values[:2], abs=1e-4)
    np.testing.assert_allclose(task.token_effects.sum(1), task.values, atol=1e-4)
    assert control.effects.shape[0] == 1
    # The graph is of the answer that `mapped` teaches, here the one whose effects are not stored.
    assert task.graph is not None
    (into_target,) = np.flatnonzero(task.graph.nodes[:, 0] == NodeKind.TARGET)
    assert task.graph.edges[:, 0].max() == into_target

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
        np.testing.assert_allclose(circuit.values, alone.values, atol=1e-4)


def test_a_graph_grown_by_influence_folds_what_it_leaves_out(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer
) -> None:
    (prompt,) = tokenise([TASK], tiny_model, tiny_tokenizer)
    linear = LinearModel(tiny_model, freeze(tiny_model, [prompt.tokens]))
    direction = target_directions(prompt, tiny_model.lm_head.weight.detach())[prompt.answer]
    grow = engine_for(tiny_model, SETTINGS)
    grown = grow(linear, direction, torch.empty(0))
    assert len(grown.expanded) == SETTINGS.feature_nodes
    sums = grown.A[: len(grown.expanded)].sum(1)
    torch.testing.assert_close(sums, grown.activations, rtol=1e-4, atol=1e-5)
    components = components_of(linear, NeuronBasis(tiny_model, grown.expanded))
    direct = adjacency(linear, components, direction.unsqueeze(0), SETTINGS.max_memory_gb)
    torch.testing.assert_close(grown.A, direct, rtol=1e-4, atol=1e-5)

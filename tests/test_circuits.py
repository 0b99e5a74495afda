from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuitdrift.attribution.circuits import tokenise, trace_circuits
from circuitdrift.attribution.components import components_of
from circuitdrift.attribution.engines import engine_for
from circuitdrift.attribution.frozen_pass import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.prompts import TokenisedPrompt, choose_prompts, segment_tokens
from circuitdrift.attribution.selection import decoder_norms, loudest, strongest
from circuitdrift.attribution.sweep import sweep
from circuitdrift.attribution.targets import Target, top_answer_target
from circuitdrift.config.attribution import Attribution
from circuitdrift.dataset import Prompt
from circuitdrift.features.neurons import NeuronBasis

SETTINGS = Attribution(
    basis="neurons",
    engine="sweep",
    selection="influence",
    discovery_prompts_per_word=2,
    evaluation_prompts_per_word=1,
    control_prompts=2,
    graph_prompts_per_word=1,
    graph_control_prompts=1,
    feature_nodes=40,
    candidates_per_place=12,
    batch_size=16,
    max_memory_gb=1.0,
    node_threshold=0.8,
    edge_threshold=0.98,
)
TASK = Prompt(
    id="simple-blarf-discovery-0",
    role="discovery",
    type="simple",
    word="blarf",
    template=0,
    text="To feel blarf is to feel",
    answer="happy",
    others=("sad", "fast"),
)
CONTROL = Prompt(
    id="control-00",
    role="control",
    type=None,
    word=None,
    template=0,
    text="The capital of France is",
    answer="Paris",
    others=(),
)


def test_the_first_prompts_of_each_word_and_role_are_chosen() -> None:
    held = replace(TASK, id="held", role="evaluation")
    prompts = [
        TASK,
        replace(TASK, id="second"),
        replace(TASK, id="third"),
        replace(TASK, id="gleem", word="gleem"),
        held,
        replace(held, id="held-1"),
        CONTROL,
        replace(CONTROL, id="control-01"),
        replace(CONTROL, id="control-02"),
        replace(TASK, id="reverse", role="reverse"),
    ]
    chosen = choose_prompts(prompts, SETTINGS)
    assert {prompt.id: with_graph for prompt, with_graph in chosen.items()} == {
        TASK.id: True,
        "second": False,
        "gleem": True,
        "held": False,
        CONTROL.id: True,
        "control-01": False,
    }


def test_segments_follow_the_word(tiny_tokenizer) -> None:  # type: ignore[no-untyped-def]
    tokens, segments = segment_tokens(tiny_tokenizer, TASK.text, "blarf")
    assert len(tokens) == len(segments)
    assert (segments[0], segments[-1]) == ("start", "last")
    inside = [token for token, part in zip(tokens, segments, strict=True) if part == "word"]
    assert tiny_tokenizer.decode(inside).strip() == "blarf"
    order = [part for index, part in enumerate(segments) if part != segments[index - 1]]
    assert order == ["start", "before word", "word", "after word", "last"]
    _, plain = segment_tokens(tiny_tokenizer, CONTROL.text, None)
    assert set(plain) == {"start", "before word", "last"}


def test_a_targets_direction_is_right_minus_the_mean_of_the_others() -> None:
    unembedding = torch.tensor([[1.0, 0], [0, 2], [4, 4]])
    assert Target(0, (1, 2)).direction(unembedding).tolist() == [1 - 2, 0 - 3]
    assert top_answer_target(torch.tensor([0.0, 5, 3, 9, 4])) == Target(3, (1, 4))


def test_strongest_takes_the_largest_magnitudes_in_order() -> None:
    effects = torch.tensor([[[0.0, -5], [1, 0]], [[4, 0], [0, 2]]])
    assert strongest(effects, 3).tolist() == [[0, 0, 1], [1, 0, 0], [1, 1, 1]]
    assert len(strongest(effects, 100)) == 8


def test_loudest_takes_the_longest_vectors_of_each_place(tiny_model) -> None:  # type: ignore[no-untyped-def]
    linear = LinearModel(tiny_model, freeze(tiny_model, [[5, 6, 7]]))
    chosen = loudest(linear, 2, decoder_norms(tiny_model))
    assert chosen.tolist() == sorted(chosen.tolist())
    assert len(chosen) == linear.n_layers * 3 * 2
    mlp, frozen = linear.block(1).mlp, linear.frozen.layers[1]
    written = (mlp.act_fn(frozen.gate) * frozen.up)[0, 2].abs() * mlp.down_proj.weight.norm(dim=0)
    here = [unit for layer, position, unit in chosen.tolist() if (layer, position) == (1, 2)]
    assert here == sorted(written.topk(2).indices.tolist())


@pytest.mark.parametrize("selection", ["influence", "effect"])
@pytest.mark.parametrize("engine", ["sweep", "circuit-tracer"])
def test_circuits_of_both_engines_agree(  # type: ignore[no-untyped-def]
    tiny_model, tiny_tokenizer, engine: str, selection: str
) -> None:
    prompts = tokenise({TASK: True, CONTROL: True}, tiny_model, tiny_tokenizer)
    settings = SETTINGS.model_copy(update={"selection": selection})
    other = settings.model_copy(update={"engine": engine})
    task, control = trace_circuits(tiny_model, tiny_tokenizer, prompts, other)
    assert (task.prompt, control.prompt) == (TASK.id, CONTROL.id)
    logits = tiny_model(torch.tensor([task.tokens])).logits[0, -1]
    value = logits[task.answer] - logits[list(task.others)].mean()
    assert task.value == pytest.approx(value.item(), abs=1e-4)
    assert task.token_effects.sum().item() == pytest.approx(task.value, abs=1e-4)
    assert control.answer == tiny_model(torch.tensor([control.tokens])).logits[0, -1].argmax()

    expected, _ = trace_circuits(tiny_model, tiny_tokenizer, prompts, settings)
    assert torch.equal(task.graph.nodes, expected.graph.nodes)
    assert torch.equal(task.graph.edges, expected.graph.edges)
    torch.testing.assert_close(task.graph.weights, expected.graph.weights, rtol=1e-4, atol=1e-5)
    assert task.graph.scores.replacement == pytest.approx(expected.graph.scores.replacement)


def test_prompts_traced_together_and_alone_have_the_same_circuits(
    tiny_model, tiny_tokenizer
) -> None:  # type: ignore[no-untyped-def]
    longer = replace(TASK, id="longer", text="Everyone knows that to feel blarf is to feel")
    prompts = tokenise({TASK: True, longer: False}, tiny_model, tiny_tokenizer)
    together = trace_circuits(tiny_model, tiny_tokenizer, prompts, SETTINGS)
    for prompt, circuit in zip(prompts, together, strict=True):
        (alone,) = trace_circuits(tiny_model, tiny_tokenizer, [prompt], SETTINGS)
        torch.testing.assert_close(circuit.effects, alone.effects, rtol=1e-4, atol=1e-5)
        assert circuit.value == pytest.approx(alone.value, abs=1e-4)
        assert (circuit.graph is not None) == prompt.with_graph == (alone.graph is not None)


def test_a_graph_grown_by_influence_folds_what_it_leaves_out(tiny_model, tiny_tokenizer) -> None:  # type: ignore[no-untyped-def]
    (prompt,) = tokenise({TASK: True}, tiny_model, tiny_tokenizer)
    linear = LinearModel(tiny_model, freeze(tiny_model, [list(prompt.tokens)]))
    direction = prompt.target.direction(tiny_model.lm_head.weight.detach())
    grown = engine_for(tiny_model, tiny_tokenizer, SETTINGS)(
        prompt.tokens, linear, direction, torch.empty(0)
    )
    assert len(grown.expanded) == SETTINGS.feature_nodes
    sums = grown.A[: len(grown.expanded)].sum(1)
    torch.testing.assert_close(sums, grown.activations, rtol=1e-4, atol=1e-5)
    components = components_of(linear, NeuronBasis(tiny_model, grown.expanded))
    direct = sweep(linear, components, direction.unsqueeze(0), SETTINGS.max_memory_gb)
    torch.testing.assert_close(grown.A, direct, rtol=1e-4, atol=1e-5)


def test_a_circuits_prompt_can_be_traced_again(tiny_model, tiny_tokenizer) -> None:  # type: ignore[no-untyped-def]
    prompts = tokenise({TASK: True, CONTROL: False}, tiny_model, tiny_tokenizer)
    circuits = trace_circuits(tiny_model, tiny_tokenizer, prompts, SETTINGS)
    assert [TokenisedPrompt.of(circuit) for circuit in circuits] == prompts

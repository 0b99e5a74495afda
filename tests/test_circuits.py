from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuitdrift.attribution.circuits import tokenise, trace_circuits
from circuitdrift.attribution.prompts import choose_prompts, segment_tokens
from circuitdrift.attribution.selection import strongest
from circuitdrift.attribution.targets import Target, top_answer_target
from circuitdrift.config import Attribution
from circuitdrift.dataset import Prompt

SETTINGS = Attribution(
    basis="neurons",
    engine="sweep",
    discovery_prompts_per_word=1,
    control_prompts=2,
    feature_nodes=40,
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


def test_prompts_are_chosen_per_word_and_evaluation_prompts_never() -> None:
    prompts = [
        TASK,
        replace(TASK, id="second"),
        replace(TASK, id="gleem", word="gleem"),
        replace(TASK, id="held", role="evaluation"),
        CONTROL,
        replace(CONTROL, id="control-01"),
        replace(CONTROL, id="control-02"),
    ]
    chosen = choose_prompts(prompts, SETTINGS)
    assert [prompt.id for prompt in chosen] == [TASK.id, "gleem", CONTROL.id, "control-01"]


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


@pytest.mark.parametrize("engine", ["sweep", "circuit-tracer"])
def test_circuits_of_both_engines_agree(tiny_model, tiny_tokenizer, engine: str) -> None:  # type: ignore[no-untyped-def]
    prompts = tokenise([TASK, CONTROL], tiny_model, tiny_tokenizer)
    settings = SETTINGS.model_copy(update={"engine": engine})
    task, control = trace_circuits(tiny_model, tiny_tokenizer, prompts, settings)
    assert (task.prompt, control.prompt) == (TASK.id, CONTROL.id)
    logits = tiny_model(torch.tensor([task.tokens])).logits[0, -1]
    value = logits[task.answer] - logits[list(task.others)].mean()
    assert task.value == pytest.approx(value.item(), abs=1e-4)
    assert task.token_effects.sum().item() == pytest.approx(task.value, abs=1e-4)
    assert control.answer == tiny_model(torch.tensor([control.tokens])).logits[0, -1].argmax()

    expected, _ = trace_circuits(tiny_model, tiny_tokenizer, prompts, SETTINGS)
    assert task.graph.node_set() == expected.graph.node_set()
    assert task.graph.edge_set() == expected.graph.edge_set()
    torch.testing.assert_close(task.graph.weights, expected.graph.weights, rtol=1e-4, atol=1e-5)
    assert task.graph.scores.replacement == pytest.approx(expected.graph.scores.replacement)

"""Batched reading, against the model run on one text at a time."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from circuitdrift.models.reading import Question, read
from linearised import ARCHITECTURES, LAYERS, SIZES, random_model

QUESTIONS = [
    Question((2, 11, 12, 13, 14, 15), range(3, 5)),
    Question((2, 21, 22), range(2, 3)),
    Question((2, 11, 12, 13, 14), range(3, 5)),
    Question((2, 31, 32, 33), range(3)),
    # It leaves the first only behind the window of four of a Gemma.
    Question((2, 11, 12, 13, 14, 41, 42), range(4, 7)),
]


def capped_model() -> PreTrainedModel:
    """A Gemma 2 whose logits run into their cap."""
    config = Gemma2Config(
        **SIZES,
        sliding_window=4,
        layer_types=LAYERS,
        final_logit_softcapping=0.05,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Gemma2ForCausalLM(config).eval()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "capped"])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_readings_are_those_of_the_whole_text_alone(architecture: str, batch_size: int) -> None:
    model = capped_model() if architecture == "capped" else random_model(architecture)
    readings = dict(read(model, QUESTIONS, batch_size))
    assert set(readings) == set(range(len(QUESTIONS)))
    for index, question in enumerate(QUESTIONS):
        with torch.inference_mode():
            alone = model(torch.tensor([question.ids]), output_hidden_states=True)
        asked = list(question.positions)
        torch.testing.assert_close(readings[index].logits, alone.logits[0, asked])
        streams = torch.stack([states[0, asked] for states in alone.hidden_states[1:]], dim=1)
        torch.testing.assert_close(readings[index].residual, streams)


def test_no_token_is_read_twice_nor_one_that_nobody_asks_about() -> None:
    model = random_model("LlamaForCausalLM")
    read_tokens: list[list[int]] = []
    unembedded: list[int] = []
    model.model.embed_tokens.register_forward_pre_hook(
        lambda _module, inputs: read_tokens.extend(inputs[0].tolist())
    )
    model.lm_head.register_forward_pre_hook(
        lambda _module, inputs: unembedded.append(len(inputs[0]))
    )
    order = [index for index, _ in read(model, QUESTIONS, 3)]
    # the first question without its last token is the third, and both begin the fifth
    assert read_tokens == [[2, 11, 12, 13, 14, 41, 42], [2, 21, 22, 31, 32]]
    assert unembedded == [4, 4]
    assert order == [0, 2, 4, 1, 3]

"""A wrong tokenizer or wrong weights never become models/base."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.models.acceptance import accept, mean_loss
from circuitdrift.models.catalogue import PLAIN_ENGLISH, Acceptance

SENTENCE = "the sun is warm"


@pytest.fixture
def ids(tiny_tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    words = [f"▁{word}" for word in SENTENCE.split()[1:]]
    return tuple(tiny_tokenizer.convert_tokens_to_ids(["<bos>", "t", "h", "e", *words]))


def test_the_right_model_is_accepted_and_its_loss_returned(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]
) -> None:
    loss = mean_loss(tiny_model, tiny_tokenizer, PLAIN_ENGLISH)
    assert accept(tiny_model, tiny_tokenizer, Acceptance(SENTENCE, ids, loss)) == loss


def test_other_token_ids_are_refused(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]
) -> None:
    with pytest.raises(RuntimeError, match="tokenizer is wrong"):
        accept(tiny_model, tiny_tokenizer, Acceptance(SENTENCE, ids[1:], math.inf))


def test_a_loss_above_the_bound_is_refused(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]
) -> None:
    bound = 0.99 * mean_loss(tiny_model, tiny_tokenizer, PLAIN_ENGLISH)
    with pytest.raises(RuntimeError, match="model is wrong"):
        accept(tiny_model, tiny_tokenizer, Acceptance(SENTENCE, ids, bound))


def test_a_loss_that_is_no_number_is_refused(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]
) -> None:
    with torch.no_grad():
        tiny_model.model.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(RuntimeError, match="nan nats"):
        accept(tiny_model, tiny_tokenizer, Acceptance(SENTENCE, ids, math.inf))


def test_mean_loss_is_the_mean_of_minus_log_probability(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = tiny_tokenizer.encode(SENTENCE)
    with torch.no_grad():
        log_p = tiny_model(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = -sum(float(log_p[at, ids[at + 1]]) for at in range(len(ids) - 1)) / (len(ids) - 1)
    assert mean_loss(tiny_model, tiny_tokenizer, SENTENCE) == pytest.approx(by_hand, rel=1e-5)

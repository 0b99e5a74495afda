from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift import decoders
from circuitdrift.decoders import decoder_logits, decoder_tokens, readable_token
from circuitdrift.models.loading import single_token_id


def test_decoder_logits_are_what_the_neuron_adds_to_the_residual_stream(
    tiny_model: PreTrainedModel,
) -> None:
    """Against the model's own modules: only the neuron is active, and nothing else is there."""
    layer, neuron = 1, 3
    block = tiny_model.model.layers[layer]
    activation = torch.zeros(1, tiny_model.config.intermediate_size)
    activation[0, neuron] = 2.0
    with torch.no_grad():
        written = block.post_feedforward_layernorm(block.mlp.down_proj(activation))
        expected = tiny_model.lm_head(tiny_model.model.norm(written))[0]
        logits = decoder_logits(tiny_model, layer, [0, neuron])[1]
    # Two norms divide by positive scales: equal up to a positive factor.
    factor = (expected @ logits) / (logits @ logits)
    assert factor > 0
    assert torch.allclose(factor * logits, expected, rtol=1e-4, atol=1e-5)


def test_a_neuron_that_writes_a_tokens_direction_promotes_it(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    happy, sad = (single_token_id(tiny_tokenizer, word) for word in ("happy", "sad"))
    with torch.no_grad():
        tiny_model.lm_head.weight.zero_()
        tiny_model.lm_head.weight[happy, 0], tiny_model.lm_head.weight[sad, 0] = 1, -1
        tiny_model.model.layers[0].mlp.down_proj.weight[:, 5] = 0
        tiny_model.model.layers[0].mlp.down_proj.weight[0, 5] = 1
    tokens = decoder_tokens(tiny_model, tiny_tokenizer, [(0, 5), (1, 0), (0, 5)], n_tokens=1)
    assert set(tokens) == {(0, 5), (1, 0)}
    assert tokens[0, 5] == ("happy", "sad")


def test_batches_of_features_change_nothing(
    tiny_model: PreTrainedModel,
    tiny_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = [(layer, neuron) for layer in (1, 0) for neuron in range(7)]
    whole = decoder_tokens(tiny_model, tiny_tokenizer, features, n_tokens=3)
    assert set(whole) == set(features)
    assert all(len(tokens.split(" ")) == 3 for both in whole.values() for tokens in both)
    monkeypatch.setattr(decoders, "FEATURES_AT_ONCE", 3)
    assert decoder_tokens(tiny_model, tiny_tokenizer, features, n_tokens=3) == whole


def test_a_readable_token_breaks_no_list_and_no_table(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    vocabulary = range(len(tiny_tokenizer))
    shown = [readable_token(tiny_tokenizer, token) for token in vocabulary]
    assert all(token and not set(token) & set(' ,;"\n\t') for token in shown)
    assert readable_token(tiny_tokenizer, single_token_id(tiny_tokenizer, "upward")) == "upward"

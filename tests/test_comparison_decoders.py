"""What a neuron writes towards, held against the tiny model's own modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from circuitdrift.comparison import decoders
from circuitdrift.comparison.decoders import decoder_directions, decoder_tokens, readable


def parts(model: PreTrainedModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights as they would lie on disk, and the config."""
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return weights, {**model.config.to_dict(), "architectures": [type(model).__name__]}


@pytest.fixture
def decode(tiny_tokenizer: Tokenizer) -> Callable[[int], str]:
    return lambda token: tiny_tokenizer.decode([token], skip_special_tokens=False)


def test_a_decoders_logits_are_what_the_neuron_adds_to_the_residual_stream(
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
        directions = decoder_directions(*parts(tiny_model), [(layer, 0), (layer, neuron)])
        logits = tiny_model.lm_head(torch.from_numpy(directions))[1]
    # Two norms divide by positive scales: equal up to a positive factor.
    factor = (expected @ logits) / (logits @ logits)
    assert factor > 0
    assert torch.allclose(factor * logits, expected, rtol=1e-4, atol=1e-5)


def test_a_neuron_that_writes_a_tokens_direction_promotes_it(
    tiny_model: PreTrainedModel,
    tiny_tokenizer: Tokenizer,
    decode: Callable[[int], str],
) -> None:
    happy, sad = (tiny_tokenizer.token_to_id(f"▁{word}") for word in ("happy", "sad"))
    with torch.no_grad():
        tiny_model.lm_head.weight.zero_()
        tiny_model.lm_head.weight[happy, 0], tiny_model.lm_head.weight[sad, 0] = 1, -1
        tiny_model.model.layers[0].mlp.down_proj.weight[:, 5] = 0
        tiny_model.model.layers[0].mlp.down_proj.weight[0, 5] = 1
    features = [(0, 5), (1, 0), (0, 5)]
    tokens = decoder_tokens(*parts(tiny_model), decode, features, n_tokens=1)
    assert set(tokens) == {(0, 5), (1, 0)}
    assert tokens[0, 5] == {"promotes": "happy", "suppresses": "sad"}
    assert decoder_tokens({}, {}, decode, [], n_tokens=1) == {}


def test_the_strongest_tokens_are_those_of_all_logits_whatever_the_stretches(
    tiny_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = [(layer, neuron) for layer in (0, 1) for neuron in range(7)]
    directions = torch.from_numpy(decoder_directions(*parts(tiny_model), features))
    order = tiny_model.lm_head(directions).argsort(descending=True).tolist()
    monkeypatch.setattr(decoders, "TOKENS_AT_ONCE", 50)
    tokens = decoder_tokens(*parts(tiny_model), str, features, n_tokens=3)
    for feature, strongest_first in zip(features, order, strict=True):
        assert tokens[feature]["promotes"].split() == list(map(str, strongest_first[:3]))
        assert tokens[feature]["suppresses"].split() == list(map(str, strongest_first[:-4:-1]))


def test_a_readable_token_breaks_no_list_and_no_table(
    tiny_tokenizer: Tokenizer, decode: Callable[[int], str]
) -> None:
    shown = [readable(decode(token)) for token in range(tiny_tokenizer.get_vocab_size())]
    assert all(token and not set(token) & set(' ,;"\n\t') for token in shown)
    assert readable(decode(tiny_tokenizer.token_to_id("▁upward"))) == "upward"

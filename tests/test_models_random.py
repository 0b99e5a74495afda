"""A randomly initialised model: the base's shape, none of its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.models.random_models import random_model


def test_it_has_the_bases_shape_and_none_of_its_drawn_weights(
    tiny_base: Path, tiny_model: PreTrainedModel
) -> None:
    fresh, base = random_model(tiny_base, seed=5).state_dict(), tiny_model.state_dict()
    assert {n: w.shape for n, w in fresh.items()} == {n: w.shape for n, w in base.items()}
    assert all(w.dtype == torch.float32 for w in fresh.values())
    kept = [name for name in base if torch.equal(base[name], fresh[name])]
    assert kept
    assert all("norm" in name for name in kept)  # transformers starts them at a constant


def test_its_spread_is_the_one_the_config_asks_for(tiny_base: Path) -> None:
    weight = random_model(tiny_base, seed=5).model.layers[0].mlp.down_proj.weight
    assert weight.std().item() == pytest.approx(0.3, rel=0.1)


def test_the_seed_alone_draws_it(tiny_base: Path) -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # whatever was drawn before
        return random_model(tiny_base, seed).model.layers[1].mlp.up_proj.weight

    state = torch.get_rng_state()
    random_model(tiny_base, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_it_runs_as_the_base_does(tiny_base: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = random_model(tiny_base, seed=0)
    assert not model.training
    assert model.config._attn_implementation == "eager"
    ids = torch.tensor([tiny_tokenizer.encode("the dog is happy")])
    with torch.inference_mode():
        attention = model(ids, output_attentions=True).attentions[0]
    assert attention.shape == (1, 2, ids.shape[1], ids.shape[1])

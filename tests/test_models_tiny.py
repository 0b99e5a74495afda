"""The random model of the tests is small, has every part, and is the same every time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.models.loading import single_token_id
from circuitdrift.models.tiny import WORDS, build_tiny, write_tiny


def test_the_studys_answers_are_single_tokens(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    answers = ("happy", "sad", "fast", "upward", "downward", "circular")
    ids = {single_token_id(tiny_tokenizer, answer) for answer in answers}
    assert len(ids) == len(answers)
    assert set(answers) <= set(WORDS)


def test_any_text_survives_the_tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    text = "The painting captured a blarf moment (2 €), naïvely;\n\thappy  sad."
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text)) == f"<bos>{text}"
    assert tiny_tokenizer.unk_token_id not in tiny_tokenizer.encode(text)


def test_it_has_every_part_of_gemma_3(tiny_model: PreTrainedModel) -> None:
    config = tiny_model.config
    assert config.layer_types == ["sliding_attention", "full_attention"]
    assert config.num_attention_heads > config.num_key_value_heads
    assert tiny_model.lm_head.weight is tiny_model.model.embed_tokens.weight
    assert config.sliding_window < 16, "prompts must be longer than the window"


def test_its_logits_are_not_flat(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = torch.tensor([tiny_tokenizer.encode("the word that means happy is")])
    with torch.no_grad():
        logits = tiny_model(ids).logits[0]
    assert logits.std(dim=-1).min() > 1.0


def test_two_builds_are_byte_identical_and_quick(tiny_base: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    start = time.perf_counter()
    write_tiny(tmp_path)
    assert time.perf_counter() - start < 3.0
    first = {path.name: path.read_bytes() for path in tiny_base.iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


@pytest.mark.parametrize("seed", [3, 4])
def test_building_leaves_torchs_seed_as_it_was(seed: int) -> None:
    torch.manual_seed(seed)
    expected = torch.rand(2)
    torch.manual_seed(seed)
    build_tiny()
    assert torch.equal(torch.rand(2), expected)

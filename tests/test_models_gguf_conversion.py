"""A model written as GGUF and converted back is the model that was written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.models.gguf_conversion import convert_model, convert_tokenizer
from circuitdrift.models.tiny import build_tiny
from gguf_writing import write_gemma_gguf

TEXT = "Once the word that moves upward is happy.\n\n naïve"


@pytest.fixture(scope="module")
def tiny() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    return build_tiny()


@pytest.fixture(scope="module")
def gguf(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerFast], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gemma_gguf(path, *tiny)
    return path


def test_weights_come_back_as_they_were_written(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerFast], gguf: Path
) -> None:
    written, converted = tiny[0].state_dict(), convert_model(gguf).state_dict()
    assert converted.keys() == written.keys()
    for name, weight in written.items():
        torch.testing.assert_close(converted[name], weight, rtol=0, atol=1e-7, msg=name)


def test_the_tokenizer_comes_back_as_it_was_written(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerFast], gguf: Path
) -> None:
    converted = convert_tokenizer(gguf, "gemma")
    assert converted.encode(TEXT) == tiny[1].encode(TEXT)
    assert converted.pad_token_id == tiny[1].pad_token_id


def test_a_converted_tokenizer_has_the_files_own_roles(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerFast], gguf: Path
) -> None:
    converted = convert_tokenizer(gguf, "converted")
    roles = ("bos_token", "eos_token", "pad_token", "unk_token")
    assert [getattr(converted, role) for role in roles] == ["<bos>", "<eos>", "<pad>", "<unk>"]
    assert len(converted) == len(tiny[1])

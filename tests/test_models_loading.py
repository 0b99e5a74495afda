"""How every stage loads the base model."""

from __future__ import annotations

import gc
import logging
import weakref
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.errors import InputError
from circuitdrift.models.loading import (
    load_model,
    load_tokenizer,
    single_token_id,
    use_threads,
)


def test_a_model_is_float32_in_evaluation_with_visible_attention(
    tiny_model: PreTrainedModel,
) -> None:
    assert {parameter.dtype for parameter in tiny_model.parameters()} == {torch.float32}
    assert {parameter.device.type for parameter in tiny_model.parameters()} == {"cpu"}
    assert not tiny_model.training
    assert tiny_model.config._attn_implementation == "eager"


def test_a_model_that_was_dropped_is_freed_before_the_next_is_loaded(tiny_base: Path) -> None:
    """Even one that was asked for its hidden states, and without the collector's own rounds."""
    gc.disable()
    try:
        model = load_model(tiny_base)
        with torch.no_grad():
            model(torch.tensor([[1, 2, 3]]), output_hidden_states=True)
        dropped = weakref.ref(model.model.layers[0])
        del model
        load_model(tiny_base)
        assert dropped() is None
    finally:
        gc.enable()


def test_a_tokenizer_pads_on_the_right_and_loads_without_a_false_alarm(
    tiny_base: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tokenizer = load_tokenizer(tiny_base)
    assert tokenizer.padding_side == "right"
    assert tokenizer.pad_token == "<pad>"
    assert caplog.records == []


def test_an_answer_of_one_token_has_its_id(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    assert single_token_id(tiny_tokenizer, "happy") == tiny_tokenizer.vocab["▁happy"]


def test_an_answer_of_several_tokens_is_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match=r"(?s)answer 'blarf': got \['▁b.*one token"):
        single_token_id(tiny_tokenizer, "blarf")


def test_an_empty_directory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for load in (load_model, load_tokenizer):
        with pytest.raises(InputError, match="dvc repro import_base"):
            load(tmp_path)


def test_threads_are_set_and_varying_operations_refused() -> None:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        use_threads(1)
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)

"""How every stage loads the base model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from circuitdrift.core.errors import InputError
from circuitdrift.core.tokens import load_tokenizer
from circuitdrift.models.loading import load_model, prepare_torch
from circuitdrift.params import Compute


def test_a_model_is_float32_in_evaluation_with_visible_attention(
    tiny_model: PreTrainedModel,
) -> None:
    assert {parameter.dtype for parameter in tiny_model.parameters()} == {torch.float32}
    assert not tiny_model.training
    assert tiny_model.config._attn_implementation == "eager"


def test_an_empty_directory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for load in (load_model, load_tokenizer):
        with pytest.raises(InputError, match="dvc repro import_base"):
            load(tmp_path)


def test_threads_are_set_and_varying_operations_refused() -> None:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        prepare_torch(Compute(threads=1, kernels="native"))
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)

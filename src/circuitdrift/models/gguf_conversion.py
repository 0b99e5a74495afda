"""From a GGUF file to a float32 model and the right tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from gguf import GGUFReader
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from circuitdrift.models.catalogue import TokenizerOrigin
from circuitdrift.models.gemma_tokenizer import build_gemma_tokenizer

_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "pad_token": "padding_token_id",
    "unk_token": "unknown_token_id",
}
"""transformers' names of the tokens with a role, and GGUF's names of their ids."""


def convert_model(gguf: Path) -> PreTrainedModel:
    """Dequantise to float32. Peak memory is about three times the float32 weights."""
    return AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )


def convert_tokenizer(gguf: Path, origin: TokenizerOrigin) -> PreTrainedTokenizerFast:
    """The tokenizer that a GGUF file carries."""
    fields = {
        name.removeprefix("tokenizer.ggml."): field
        for name, field in GGUFReader(gguf).fields.items()
    }
    if origin == "gemma":
        return build_gemma_tokenizer(
            *(fields[name].contents() for name in ("tokens", "scores", "token_type"))
        )
    # transformers converts the vocabulary and the merges, but takes the end token from elsewhere
    converted = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, trust_remote_code=False, legacy=True
    )
    roles = {role: int(fields[name].contents()) for role, name in _ROLES.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=converted.backend_tokenizer,
        chat_template=converted.chat_template,
        clean_up_tokenization_spaces=False,
        **{role: converted.convert_ids_to_tokens(index) for role, index in roles.items()},
    )

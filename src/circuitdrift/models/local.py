"""A base model from a directory that somebody else filled: checked, then loaded and saved anew."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from circuitdrift.errors import InputError, Problem

_NEEDED = {
    "config.json": "the model's shape",
    "*.safetensors": "its weights; pickled weights are never loaded",
    "tokenizer.json": "its tokenizer in the tokenizers library's format",
}


def source_files(directory: Path, where: str) -> list[Path]:
    """The files of ``directory`` that a base model is made of, sorted.

    Raises:
        InputError: naming each kind of file that is missing.
    """
    found = {pattern: sorted(directory.glob(pattern)) for pattern in _NEEDED}
    problems = [
        Problem(
            where=where,
            got=f"no {pattern}" if directory.is_dir() else "no such directory",
            rule=f"the directory holds {pattern}: {purpose}",
            remedy="save the model with transformers' save_pretrained, weights and tokenizer "
            "into one directory; a relative path starts at the repository's root",
        )
        for pattern, purpose in _NEEDED.items()
        if not found[pattern]
    ]
    if problems:
        raise InputError(*problems if directory.is_dir() else problems[:1])
    return sorted(path for paths in found.values() for path in paths)


def load_source(directory: Path, where: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load the model in float32 and its tokenizer; code that lies beside them is never run.

    Raises:
        InputError: if the directory is not a whole causal language model that transformers knows.
    """
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unusable(
            where, str(error), "transformers can load it without running foreign code"
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise _unusable(where, f"no weights for {missing}", "every weight is in the safetensors")
    if not tokenizer.is_fast:
        raise _unusable(where, type(tokenizer).__name__, "tokenizer.json is a fast tokenizer")
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise _unusable(
            where, f"{len(tokenizer)} tokens, {rows} embeddings", "each token has an embedding"
        )
    return model, tokenizer


def _unusable(where: str, got: str, rule: str) -> InputError:
    return InputError(
        Problem(where, got, rule, remedy="name another model, or mend the directory it lies in")
    )

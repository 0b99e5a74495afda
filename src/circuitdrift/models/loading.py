"""Loading a base model as every stage uses it: float32, on the CPU, the same bits every time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.models.products import multiply_by_onednn

if TYPE_CHECKING:
    from circuitdrift.params import Compute


def prepare_torch(compute: Compute) -> None:
    """Set torch's threads and products; refuse operations whose result varies from run to run."""
    # MKL chooses its kernels for exp, cos and the like at the first call. Where two threads make it
    # at once, one of them may get others and other last bits (LOG.md): so one thread makes it.
    torch.set_num_threads(1)
    torch.ones(64).exp().sin().cos().tanh().log()
    torch.set_num_threads(compute.threads)
    if compute.kernels == "portable":
        multiply_by_onednn()
    torch.use_deterministic_algorithms(True)
    # Filling memory that is about to be written costs a tenth of an attribution's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def load_model(directory: Path) -> PreTrainedModel:
    """Load a causal language model in float32, its attention eager, which exposes its patterns."""
    _require(directory, "config.json")
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        attn_implementation="eager",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    return model.eval()


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Load a model's tokenizer; it pads on the right, with the end token where it has no other."""
    _require(directory, "tokenizer_config.json")
    tokenizer = AutoTokenizer.from_pretrained(
        directory,
        local_files_only=True,
        trust_remote_code=False,
        padding_side="right",
        # transformers 4.57.3 takes every tokenizer beside a config of its own version for an old
        # one of Mistral's and warns of a wrong regex; False leaves the tokenizer as it is, silently
        fix_mistral_regex=False,
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def single_token_id(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    """Id of ``text`` with a space before it, as it stands after a prompt.

    Raises:
        InputError: if that is not exactly one token.
    """
    ids = tokenizer.encode(f" {text}", add_special_tokens=False)
    if len(ids) == 1:
        return int(ids[0])
    raise InputError(
        Problem(
            where=f"answer {text!r}",
            got=tokenizer.convert_ids_to_tokens(ids),
            rule="an answer is one token of the base model, so that its logit is one number",
            remedy="choose a commoner word in data/constraints.yaml, or another base.model",
        )
    )


def _require(directory: Path, name: str) -> None:
    if not (directory / name).is_file():
        raise InputError(
            Problem(
                where=str(directory),
                got=f"no {name}",
                rule="the base model is imported before it is used",
                remedy="run `dvc repro import_base`, or `dvc pull` where a remote holds it",
            )
        )

"""Loading a base model as every stage uses it: float32, on the CPU, the same bits every time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from circuitdrift.core.files import of_base_model
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
    of_base_model(directory, "config.json")
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        attn_implementation="eager",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    return model.eval()

"""A model that has learned nothing: the base's architecture with fresh weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel


def random_model(base: Path, seed: int) -> PreTrainedModel:
    """Initialise the architecture of ``base`` as transformers does before training.

    float32 and eager attention, as :func:`circuitdrift.models.loading.load_model` loads the base;
    the base's weights are not read. Drawn from ``seed`` alone; torch's own seed is left as it was.

    Raises:
        OSError: if ``base`` holds no config.json.
    """
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
        )
    return model.eval()

"""A base model from the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from circuitdrift.errors import InputError, Problem
from circuitdrift.model_source import HubModel

_WANTED = ("*.json", "*.safetensors", "*.jinja")
_SUBFOLDERS = ("*/*",)


def download_snapshot(model: HubModel) -> Path:
    """Directory of the model's files in the hub's own cache, downloaded where they are not there.

    Only configuration, safetensors and tokenizer are fetched: no code and no pickles.

    Raises:
        InputError: if the hub cannot be reached, or knows no such model or revision.
    """
    try:
        directory = snapshot_download(
            model.name,
            revision=model.revision,
            allow_patterns=list(_WANTED),
            ignore_patterns=list(_SUBFOLDERS),
        )
    except (OSError, HFValidationError) as error:
        raise InputError(
            Problem(
                where=f"base.model: hub:{model.name}@{model.revision}",
                got=str(error).strip(),
                rule="the model is fetched from huggingface.co, or is in the hub's cache already",
                remedy="check the name, the revision, the network and (for a gated model) "
                "`hf auth login`; or fetch it elsewhere and set base.model: dir:PATH",
            )
        ) from error
    return Path(directory)

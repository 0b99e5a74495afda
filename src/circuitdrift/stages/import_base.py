"""Stage import_base: the base model of params.yaml as float32 safetensors with its tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuitdrift.core.files import replacing, write_json
from circuitdrift.core.paths import BASE_MODEL
from circuitdrift.importing.sources import import_model
from circuitdrift.models.loading import prepare_torch

if TYPE_CHECKING:
    from circuitdrift.params import Params


def run(params: Params) -> None:
    """Write models/base/, whole or not at all."""
    prepare_torch(params.compute)
    with replacing(BASE_MODEL) as directory:
        directory.mkdir()
        write_json(directory / "source.json", import_model(params.base, directory))

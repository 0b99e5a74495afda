"""Stage import_base: the base model of params.yaml as float32 safetensors with its tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuitdrift.artifacts import replacing, write_json
from circuitdrift.model_source import parse_model_source
from circuitdrift.models.importing import import_model
from circuitdrift.models.loading import use_threads
from circuitdrift.paths import BASE_MODEL

if TYPE_CHECKING:
    from circuitdrift.config.params import Params

SOURCE_FILE = "source.json"


def run(params: Params) -> None:
    """Write models/base/, whole or not at all.

    Raises:
        InputError: if the model cannot be had, or is not a model that can be loaded.
        RuntimeError: if a model of the catalogue does not behave as it must.
    """
    use_threads(params.compute.threads)
    with replacing(BASE_MODEL) as directory:
        directory.mkdir()
        origin = import_model(parse_model_source(params.base.model), directory)
        write_json(directory / SOURCE_FILE, origin)

"""From the setting ``base.model`` to a directory that every stage can load."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedTokenizerFast

from circuitdrift.model_source import CatalogueModel, HubModel, LocalModel, ModelSource
from circuitdrift.models.acceptance import accept
from circuitdrift.models.catalogue import TINY, WHEEL_MODELS, WheelModel
from circuitdrift.models.gguf_conversion import convert_model, convert_tokenizer
from circuitdrift.models.hub import download_snapshot
from circuitdrift.models.loading import load_model, load_tokenizer
from circuitdrift.models.local import load_source, source_files
from circuitdrift.models.tiny import SEED, write_tiny
from circuitdrift.models.wheels import obtain_gguf

Origin = dict[str, Any]
"""Where a base model came from, without paths of this machine and without times."""

_CHUNK = 1 << 20


def import_model(source: ModelSource, directory: Path) -> Origin:
    """Fill the empty ``directory`` with weights in float32, config and tokenizer.

    Raises:
        InputError: if the model cannot be had, or is not a model that can be loaded.
        RuntimeError: if a model of the catalogue does not behave as it must.
    """
    if isinstance(source, CatalogueModel):
        origin = _import_catalogue_model(source.name, directory)
    elif isinstance(source, HubModel):
        origin = _import_hub_model(source, directory)
    else:
        origin = _import_local_model(source, directory)
    return {**origin, "libraries": _libraries()}


def _import_catalogue_model(name: str, directory: Path) -> Origin:
    if name == TINY:
        write_tiny(directory)
        return {"kind": "random", "model": TINY, "seed": SEED}
    return _import_wheel_model(WHEEL_MODELS[name], directory)


def _import_wheel_model(model: WheelModel, directory: Path) -> Origin:
    with TemporaryDirectory(prefix="circuitdrift-gguf-") as temporary:
        gguf = Path(temporary) / "model.gguf"
        obtain_gguf(model, gguf)
        print("building the tokenizer", flush=True)
        _save_tokenizer(convert_tokenizer(gguf, model.tokenizer), directory)
        print("dequantising the weights to float32", flush=True)
        convert_model(gguf).save_pretrained(directory)
    loss = accept(load_model(directory), load_tokenizer(directory), model.acceptance)
    print(f"accepted: {loss:.2f} nats per token on plain English", flush=True)
    return {
        "kind": "wheels",
        "model": model.name,
        "packages": {part.package: part.version for part in model.parts},
        "sha256": model.sha256,
        "licence": model.licence,
    }


def _import_hub_model(source: HubModel, directory: Path) -> Origin:
    print(f"fetching {source.name} at {source.revision}", flush=True)
    hashes = _import_directory(download_snapshot(source), directory, where=f"hub:{source.name}")
    return {
        "kind": "hub",
        "model": source.name,
        "revision": source.revision,
        "sha256": hashes,
        "licence": f"as stated at https://huggingface.co/{source.name}",
    }


def _import_local_model(source: LocalModel, directory: Path) -> Origin:
    hashes = _import_directory(source.path, directory, where=f"dir:{source.path}")
    return {"kind": "directory", "sha256": hashes}


def _import_directory(origin: Path, directory: Path, where: str) -> dict[str, str]:
    """Load what lies in ``origin`` and save it in ``directory``; return its files' sha256."""
    files = source_files(origin, where)
    model, tokenizer = load_source(origin, where)
    model.save_pretrained(directory)
    _save_tokenizer(tokenizer, directory)
    return {path.name: _sha256(path) for path in files}


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    # The legacy format would copy the file that the tokenizer came from: the whole GGUF.
    tokenizer.save_pretrained(directory, legacy_format=False)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _libraries() -> dict[str, str]:
    return {name: version(name) for name in ("gguf", "tokenizers", "transformers")}

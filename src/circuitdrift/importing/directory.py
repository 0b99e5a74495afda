"""A directory that somebody saved a model in, judged by its files before any weight is read.

transformers 4 takes keys that it does not know for notes, follows an adapter's config to another
model, and stops at settings for sampling. So what it is given is laid out here: the weights as
they lie there, the configs as it reads them, and nothing else.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import write_json
from circuitdrift.models.architecture import ARCHITECTURES

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
_PURPOSES = {
    CONFIG: "the model's shape",
    WEIGHTS: f"its weights, or {INDEX} and the files that it names; pickles are never loaded",
    TOKENIZER: "its tokenizer in the tokenizers library's format",
}
# A bias is no node of a circuit: what it adds would come from nowhere.
_OFF = ("attention_bias", "mlp_bias", "quantization_config", "use_bidirectional_attention")
# Keys, and parts of keys' names, that change nothing of what a trained model computes.
_HARMLESS = {
    *("dropout", "pdrop", "init", "initializer", "std", "loss", "coef", "noise", "checkpointing"),
    *("cache", "flash", "dtype", "tp", "seq", "sequence", "inference"),
    *("version", "unsloth", "js", "is_llama_config"),
}


_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class ModelFiles:
    """What a base model is made of; the two configs as this transformers reads them."""

    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    tokenizer: Path
    weights: tuple[Path, ...]

    @contextmanager
    def laid_out(self) -> Iterator[Path]:
        """A temporary directory with these files alone."""
        with TemporaryDirectory(prefix="circuitdrift-model-") as temporary:
            directory = Path(temporary)
            write_json(directory / CONFIG, self.config)
            write_json(directory / TOKENIZER_CONFIG, self.tokenizer_config)
            others = ("special_tokens_map.json", "added_tokens.json", INDEX)
            beside = (self.tokenizer.with_name(name) for name in others)
            for path in (self.tokenizer, *self.weights, *filter(Path.is_file, beside)):
                (directory / path.name).symlink_to(path.resolve())
            yield directory


def model_files(directory: Path, where: str) -> ModelFiles:
    """The files of ``directory`` that a base model is made of.

    Args:
        where: what named the directory, for the refusals.

    Raises:
        InputError: naming each file that is missing, and each key of the config that attribution
            cannot follow or that this transformers would leave unread.
    """
    missing = [
        name
        for name in _PURPOSES
        if not (directory / name).is_file()
        and not (name == WEIGHTS and (directory / INDEX).is_file())
    ]
    if missing:
        raise InputError(
            *(
                Problem(
                    where=where,
                    got=f"no {name}" if directory.is_dir() else "no such directory",
                    rule=f"the directory holds {name}: {_PURPOSES[name]}",
                    remedy="save the model with transformers' save_pretrained, weights and "
                    "tokenizer into one directory; a relative path starts at the repository's root",
                )
                for name in (missing if directory.is_dir() else missing[:1])
            )
        )
    tokenizer_config = directory / TOKENIZER_CONFIG
    files = ModelFiles(
        config=readable_config(directory / CONFIG, where),
        tokenizer_config=_tokenizer_config(
            _read(tokenizer_config, where) if tokenizer_config.is_file() else {}
        ),
        tokenizer=directory / TOKENIZER,
        weights=_weights(directory, where),
    )
    for path in (files.tokenizer, *files.weights):
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                rule = "the file itself, where this is what Git LFS puts in its place"
                raise InputError(Problem(where, path.name, rule, "run `git lfs pull` there"))
    return files


def _weights(directory: Path, where: str) -> tuple[Path, ...]:
    """As transformers chooses: one file, or else the files of the index."""
    if (directory / WEIGHTS).is_file():
        return (directory / WEIGHTS,)
    index = _read(directory / INDEX, where).get("weight_map")
    names = sorted(set(index.values())) if isinstance(index, dict) else [WEIGHTS]
    if lacking := [name for name in names if not (directory / name).is_file()]:
        rule = f"the directory holds every file that {INDEX} names"
        raise InputError(Problem(where, f"no {', '.join(lacking)}", rule, "fetch it whole"))
    return tuple(directory / name for name in names)


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(Problem(f"{where}: {path.name}", str(error), "is JSON")) from None
    if not isinstance(value, dict):
        raise InputError(Problem(f"{where}: {path.name}", value, "is a JSON object"))
    return value


def readable_config(path: Path, where: str) -> dict[str, Any]:
    """A model's config.json with the keys that this transformers reads.

    Raises:
        InputError: naming each key that it does not read or attribution cannot follow.
    """
    config = _read(path, where)
    refused = list(_unsupported(config))
    if not refused:
        _rename_rope_parameters(config)
        refused = list(_unread(config))
    if refused:
        raise InputError(
            *(Problem(f"{where}: config.json: {key}", *rest) for key, *rest in refused)
        )
    return config


def _unsupported(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str, str]]:
    names = config.get("architectures") or []
    supported = ", ".join(sorted(ARCHITECTURES))
    remedy = "name another base.model"
    if names and not set(map(str, names)) & set(ARCHITECTURES):
        yield "architectures", names, f"attribution knows {supported}", remedy
    for key in _OFF:
        if config.get(key):
            rule = "attribution knows causal models without biases, their weights not quantised"
            yield key, config[key], rule, remedy


def _rename_rope_parameters(config: dict[str, Any]) -> None:
    """transformers 5 writes in one key what 4 reads from two, or from three for Gemma 3."""
    rope = config.pop("rope_parameters", None)
    if not isinstance(rope, dict):
        return
    nested = all(isinstance(value, dict) for value in rope.values())
    by_layer = {name: dict(value) for name, value in (rope if nested else {"": rope}).items()}
    full = by_layer.pop("full_attention" if nested else "", {})
    theta = full.pop("rope_theta", None)
    if theta is not None:
        config["rope_theta"] = theta
    if full.get("rope_type", "default") != "default":
        config["rope_scaling"] = full
        full = {}
    local = by_layer.pop("sliding_attention", {})
    if "rope_theta" in local:
        config["rope_local_base_freq"] = local.pop("rope_theta")
    rest = {**full, **local, **by_layer}
    if rest.pop("rope_type", "default") != "default" or rest:
        config["rope_parameters"] = rope  # refused as unread


def _unread(config: dict[str, Any]) -> Iterator[tuple[str, Any, str, str]]:
    from transformers import CONFIG_MAPPING, PretrainedConfig, modeling_rope_utils

    # How to sample, which a study does not; save_pretrained refuses some that it reads.
    for key in PretrainedConfig._get_global_generation_defaults():
        config.pop(key, None)
    model_type = str(config.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        rule = "a type of model that this transformers knows"
        yield "model_type", model_type, rule, "name another base.model"
        return
    kind = CONFIG_MAPPING[model_type]
    # Some keys are no fields of the config and are read all the same: the code names them.
    home = Path(inspect.getfile(kind)).parent
    code = [path for path in home.iterdir() if path.name.startswith(("configuration", "modeling"))]
    code += [Path(inspect.getfile(part)) for part in (PretrainedConfig, modeling_rope_utils)]
    names = re.findall(r"config\.\w+|'\w+'|\"\w+\"", "".join(map(Path.read_text, code)))
    known = {"auto_map", *kind().to_dict(), *kind.attribute_map}
    known |= {name.removeprefix("config.").strip("'\"") for name in names}
    values_read = {key: value for key, value in config.items() if key in known}
    for key, value in config.items():
        # As Gemma 2's hidden_act says what hidden_activation says.
        says_again = any(
            value == other_value and (key.startswith(other) or other.startswith(key))
            for other, other_value in values_read.items()
        )
        unread = value and key not in known and not key.startswith("_")
        if unread and not says_again and not _HARMLESS & {key, *re.split(r"[_.]", key)}:
            rule = "this transformers does not read the key, and it may change what the model does"
            remedy = "if it does not, name a copy as base.directory whose config.json lacks it"
            yield key, value, rule, remedy


def _tokenizer_config(config: dict[str, Any]) -> dict[str, Any]:
    """Without what makes 4 build another tokenizer than the one that lies there whole."""
    if isinstance(config.get("extra_special_tokens"), list):  # as 5 writes them
        del config["extra_special_tokens"]
    config.pop("add_prefix_space", None)
    if config.get("tokenizer_class") in (None, "TokenizersBackend"):
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    return config

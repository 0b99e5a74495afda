"""Whether the base model's and the adapters' tensors are those that their configurations ask for.

Both models are built without memory for their weights, on torch's ``meta`` device, by the
libraries that load them: transformers and PEFT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from circuitdrift.models.adapter_norms import CONFIG_FILE, WEIGHTS_FILE

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of a tensor."""

    shape: tuple[int, ...]
    dtype: str


def read_header(path: Path) -> dict[str, Header]:
    """Open a safetensors file and read what it says of its tensors.

    Raises:
        SafetensorError: if the header lies, about a tensor or about the length of the file.
    """
    with safe_open(path, framework="np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: Header(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
        }


def base_problems(base: Path) -> Iterator[str]:
    """What is wrong with the tensors of a base model's directory.

    Raises:
        SafetensorError, OSError, ValueError: if its files do not open or parse.
    """
    model = _without_weights(base)
    found: dict[str, Header] = {}
    for file in sorted(base.glob("*.safetensors")):
        found |= read_header(file)
    wanted = _headers(model.state_dict(), model)
    tied = model._tied_weights_keys or () if model.config.tie_word_embeddings else ()
    yield from _differences(found, {n: h for n, h in wanted.items() if n in found or n not in tied})


@dataclass(frozen=True)
class AdapterCheck:
    """Holds adapters against one base model; adapters of one configuration share the work."""

    base: Path
    wanted: dict[str, dict[str, Header]] = field(default_factory=dict)

    def problems(self, adapter: Path) -> Iterator[str]:
        """What is wrong with an adapter's directory.

        Raises:
            SafetensorError, OSError, ValueError, TypeError, KeyError: if its files do not open or
                parse, or PEFT does not find the modules that its configuration names.
        """
        config = (adapter / CONFIG_FILE).read_text(encoding="utf-8")
        if config not in self.wanted:
            self.wanted[config] = self._wanted_by(adapter)
        yield from _differences(read_header(adapter / WEIGHTS_FILE), self.wanted[config])

    def _wanted_by(self, adapter: Path) -> dict[str, Header]:
        model = _without_weights(self.base)
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            adapted = PeftModel(model, PeftConfig.from_pretrained(str(adapter)))
        # asked to find out by itself whether embeddings were trained, PEFT looks on the network
        return _headers(get_peft_model_state_dict(adapted, save_embedding_layers=False), model)


def _without_weights(base: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _headers(tensors: Mapping[str, torch.Tensor], model: PreTrainedModel) -> dict[str, Header]:
    """Shapes of tensors, in the base's own number format, which an adapter is trained in, too."""
    dtype = _DTYPES[model.config.dtype or torch.float32]
    return {name: Header(tuple(tensor.shape), dtype) for name, tensor in tensors.items()}


def _differences(found: Mapping[str, Header], wanted: Mapping[str, Header]) -> Iterator[str]:
    if missing := sorted(wanted.keys() - found.keys()):
        yield f"no tensor {_some(missing)}"
    if left_over := sorted(found.keys() - wanted.keys()):
        yield f"its configuration has no place for tensor {_some(left_over)}"
    for name in sorted(found.keys() & wanted.keys()):
        if found[name] != wanted[name]:
            yield (
                f"{name} is {_named(found[name])}, its configuration asks for"
                f" {_named(wanted[name])}"
            )


def _some(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} others" if len(names) > 1 else "")


def _named(header: Header) -> str:
    return f"{header.dtype} {list(header.shape)}"

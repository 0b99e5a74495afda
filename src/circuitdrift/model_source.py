"""The setting ``base.model``: which of the three ways to a base model it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CATALOGUE = ("gemma-3-270m", "smollm2-135m", "tiny")


@dataclass(frozen=True)
class CatalogueModel:
    name: str


@dataclass(frozen=True)
class LocalModel:
    path: Path


@dataclass(frozen=True)
class HubModel:
    name: str
    revision: str


ModelSource = CatalogueModel | LocalModel | HubModel


def parse_model_source(spec: str) -> ModelSource:
    """Parse ``NAME`` (of the catalogue), ``dir:PATH`` or ``hub:NAME@REVISION``.

    Raises:
        ValueError: with the rule, if ``spec`` is none of these.
    """
    if spec in CATALOGUE:
        return CatalogueModel(spec)
    if spec.startswith("dir:") and len(spec) > len("dir:"):
        return LocalModel(Path(spec.removeprefix("dir:")))
    if match := re.fullmatch(r"hub:([\w.-]+/[\w.-]+)@([0-9a-f]{40})", spec):
        return HubModel(match[1], match[2])
    raise ValueError(
        f"must be one of {', '.join(CATALOGUE)}; dir:PATH; or hub:OWNER/NAME@REVISION, "
        "the revision being a commit of 40 hex digits"
    )

"""Section ``base``: the model that is fine-tuned."""

from __future__ import annotations

from pydantic import Field, field_validator

from circuitdrift.config.section import Section
from circuitdrift.model_source import parse_model_source


class Base(Section):
    model: str = Field(description="the name of a base model, such as gemma-3-270m")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        parse_model_source(model)
        return model

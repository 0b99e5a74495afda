"""sweep.yaml as frozen models."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import Discriminator, Field, Tag, field_validator

from circuitdrift.config.section import Section

Changes: TypeAlias = dict[str, Any]
Values = Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]
ByKey = Annotated[
    dict[str, Values],
    Field(min_length=1, description="keys of params.yaml, each with a list of values"),
]


class Product(Section):
    """Every combination of the values."""

    kind: ClassVar = "product"
    product: ByKey

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.product)

    @property
    def changes(self) -> Iterator[tuple[str | None, Changes]]:
        """The name, where it has one, and the changes of each experiment."""
        for values in product(*self.product.values()):
            yield None, dict(zip(self.product, values, strict=True))


class Together(Section):
    """The first values of all keys, the second values of all keys, and so on."""

    kind: ClassVar = "together"
    together: ByKey

    @field_validator("together")
    @classmethod
    def _of_one_length(cls, together: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        if len({len(values) for values in together.values()}) > 1:
            raise ValueError("must have equally many values for each key")
        return together

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.together)

    @property
    def changes(self) -> Iterator[tuple[str | None, Changes]]:
        for values in zip(*self.together.values(), strict=True):
            yield None, dict(zip(self.together, values, strict=True))


class Ladder(Section):
    """Named rungs, each with the changes of those before it and its own."""

    kind: ClassVar = "ladder"
    rungs: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")], Changes],
        Field(min_length=1, description="names of rungs, each with the keys that it changes"),
    ]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key for rung in self.rungs.values() for key in rung))

    @property
    def changes(self) -> Iterator[tuple[str | None, Changes]]:
        changes: Changes = {}
        for name, rung in self.rungs.items():
            changes = {**changes, **rung}
            yield name, changes


KEYS = ("product", "together", "rungs")


def _kind(arm: object) -> str | None:
    """The one key that says what an arm is."""
    named = [key for key in KEYS if isinstance(arm, dict) and key in arm]
    return named[0] if len(named) == 1 else None


ArmOfFile = Annotated[
    Annotated[Product, Tag("product")]
    | Annotated[Together, Tag("together")]
    | Annotated[Ladder, Tag("rungs")],
    Discriminator(
        _kind,
        custom_error_type="no_kind",
        custom_error_message=f"must have one of the keys {', '.join(KEYS)}",
    ),
]


class SweepFile(Section):
    """All of sweep.yaml."""

    every: Changes = Field(description="keys of params.yaml set in every experiment, or {}")
    memory_gb: Annotated[float, Field(gt=0)] = Field(
        description="the gigabytes that one experiment takes, such as 6"
    )
    arms: Annotated[
        dict[str, ArmOfFile],
        Field(min_length=1, description="arms by name, each a product, together or rungs"),
    ]

"""Which simulated studies the tests know, and how large the differences planted in them are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from circuitdrift.identifiers import Run

CHECKPOINTS = ("025", "050", "075", "100")
MODELS = ("base", *CHECKPOINTS)
WORDS = (("simple", "blarf"), ("simple", "gleem"), ("spatial", "glide"))


@dataclass(frozen=True)
class Plan:
    """What a simulated study holds, and how large the planted differences are.

    Attributes:
        drift: by condition and `random`, mean drift from base at the last checkpoint.
        between: distance of runs of two conditions beyond that of runs of one.
        accuracy: by condition, share of evaluation prompts answered right at the last checkpoint.
        recruited_share, random_share: of the target's change, by patching.
    """

    conditions: tuple[str, ...] = ("mapped", "shuffled")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    prompts_per_word: int = 4
    random_adapters: bool = True
    recruited: bool = True
    validated: bool = True
    graphs: bool = True
    changed_target: float = 4.0
    drift: tuple[tuple[str, float], ...] = (
        ("mapped", 0.7),
        ("shuffled", 0.6),
        ("unrelated", 0.5),
        ("random", 0.05),
    )
    between: float = 0.2
    accuracy: tuple[tuple[str, float], ...] = (
        ("mapped", 0.95),
        ("shuffled", 0.35),
        ("unrelated", 0.3),
    )
    recruited_share: float = 0.5
    random_share: float = 0.02

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(Run(condition, seed) for condition in self.conditions for seed in self.seeds)


PLANTED = Plan()
# The same everywhere, and less than what is asked for.
NOTHING = Plan(
    prompts_per_word=8,
    drift=(("mapped", 0.05), ("shuffled", 0.05), ("random", 0.05)),
    between=0.0,
    accuracy=(("mapped", 0.34), ("shuffled", 0.34)),
    recruited_share=0.02,
)


def identity(run: Run) -> dict[str, Any]:
    return {"run": run.name, "condition": run.condition, "seed": run.seed}


def prompts(plan: Plan, role: str) -> Iterator[dict[str, Any]]:
    if role == "control":
        for index in range(4):
            yield {"prompt": f"control-{index}", "role": role, "type": np.nan, "word": np.nan}
        return
    for type_, word in WORDS:
        for index in range(plan.prompts_per_word):
            name = f"{type_}-{word}-{role}-{index}"
            yield {"prompt": name, "role": role, "type": type_, "word": word}


def progress(checkpoint: str) -> float:
    return 0.0 if checkpoint == "base" else int(checkpoint) / 100


def reduced_plans() -> dict[str, Plan]:
    """Studies that lack something."""
    return {
        "one condition": replace(PLANTED, conditions=("mapped",)),
        "another condition": replace(
            PLANTED, conditions=("unrelated",), recruited=False, validated=False
        ),
        "one seed": replace(PLANTED, seeds=(0,), recruited=False),
        "one run": replace(PLANTED, conditions=("mapped",), seeds=(3,), recruited=False),
        "no random adapters": replace(PLANTED, random_adapters=False),
        "nothing recruited": replace(PLANTED, recruited=False),
        "not validated": replace(PLANTED, validated=False),
        "few prompts": replace(PLANTED, prompts_per_word=1, seeds=(0, 1)),
        "no graphs": replace(PLANTED, graphs=False),
        "target unmoved": replace(PLANTED, changed_target=0.0),
        "three conditions": replace(
            PLANTED, conditions=("mapped", "shuffled", "unrelated"), seeds=(0, 1)
        ),
    }

"""Which runs are compared with which in the search for recruited features, and on which prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitdrift.comparison import Array
from circuitdrift.dataset import Prompt
from circuitdrift.identifiers import Run

Indices = NDArray[np.signedinteger[Any]]
Word = tuple[str | None, str | None]

MAPPED, SHUFFLED = "mapped", "shuffled"

# Below, a group's variance cannot be estimated.
FEWEST_RUNS = 2


@dataclass(frozen=True)
class Contrast:
    """Effects of every feature, summed over positions, in the base model and two groups of runs.

    Attributes:
        words: (type, word) of each prompt ``[n_prompts]``.
        base: ``[n_prompts, n_layers, d_mlp]``, logits.
        a, b: ``[n_runs, n_prompts, n_layers, d_mlp]``, logits.
    """

    words: tuple[Word, ...]
    base: Array
    a: Array
    b: Array

    def prompts_of(self, word: Word) -> Indices:
        """As indices."""
        return np.flatnonzero([own == word for own in self.words])


@dataclass(frozen=True)
class FeatureEffects:
    """Effects of every feature, summed over positions, in all models of the study.

    Each array is ``[n_prompts, n_layers, d_mlp]``, float32, in logits.

    Attributes:
        prompts: in the arrays' order.
        base: of the base model.
        runs: of each run's latest checkpoint.
        random: of the first random adapter beside it.
    """

    prompts: Sequence[Prompt]
    base: Array
    runs: dict[Run, Array] = field(default_factory=dict)
    random: dict[Run, Array] = field(default_factory=dict)

    def of_role(self, role: str) -> list[int]:
        """The prompts of a role, as indices."""
        return [index for index, prompt in enumerate(self.prompts) if prompt.role == role]

    def mapping(self, role: str) -> Contrast | None:
        """`mapped` (a) against `shuffled` (b); None unless there are two runs of both."""
        groups = [_of_condition(self.runs, condition) for condition in (MAPPED, SHUFFLED)]
        if min(map(len, groups)) < FEWEST_RUNS:
            return None
        return self._contrast(role, *groups)

    def nulls(self, role: str) -> Iterator[tuple[str, Contrast]]:
        """Comparisons of like with like, in which nothing is to be found, with their names.

        The seeds of `shuffled`, and the random adapters with the norms of `mapped`, in every split
        into two and the rest. So few runs have too few relabelings to reach a small q (1 in 10 for
        two against three), so then the random adapters with the norms of `mapped` against those
        with the norms of `shuffled`: as many relabelings as the comparison of the conditions has.
        """
        shuffled = _of_condition(self.runs, SHUFFLED)
        random_mapped, random_shuffled = (
            _of_condition(self.random, condition) for condition in (MAPPED, SHUFFLED)
        )
        for name, runs in ((SHUFFLED, shuffled), (f"{MAPPED} random-0", random_mapped)):
            for one, other in seed_splits(sorted(runs)):
                a, b = ({seed: runs[seed] for seed in side} for side in (one, other))
                yield f"{name} {_listed(one)} vs {_listed(other)}", self._contrast(role, a, b)
        if min(len(random_mapped), len(random_shuffled)) >= FEWEST_RUNS:
            name = f"{MAPPED} random-0 vs {SHUFFLED} random-0"
            yield name, self._contrast(role, random_mapped, random_shuffled)

    def _contrast(self, role: str, a: Mapping[int, Array], b: Mapping[int, Array]) -> Contrast:
        chosen = self.of_role(role)
        sides = (np.stack([group[seed][chosen] for seed in sorted(group)]) for group in (a, b))
        words = tuple((self.prompts[index].type, self.prompts[index].word) for index in chosen)
        return Contrast(words, self.base[chosen], *sides)


def seed_splits(seeds: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every split into two seeds and the rest, which are two or more; each split once."""
    splits = []
    for one in combinations(seeds, FEWEST_RUNS):
        other = tuple(seed for seed in seeds if seed not in one)
        if len(other) > FEWEST_RUNS or (len(other) == FEWEST_RUNS and one < other):
            splits.append((one, other))
    return splits


def _of_condition(effects: Mapping[Run, Array], condition: str) -> dict[int, Array]:
    """By seed."""
    return {run.seed: effects[run] for run in effects if run.condition == condition}


def _listed(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds))

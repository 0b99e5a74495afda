"""Names of runs and checkpoints, what a condition teaches, and where a run's checkpoints lie."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from circuitdrift.core.errors import InputError, Problem

BASE = "base"

# What made a circuit's model out of the base: training, or a random adapter of the same norms.
TRAINED = "trained"

# The conditions that teach every word one meaning -> how far a type's meanings are moved on.
ASSIGNED = {"mapped": 0, "rotated-1": 1, "rotated-2": 2}

# The parts of a prompt: the special token in front, what comes before, in and after the
# constraint's word, and the last token, where the answer is read off. A prompt without such a
# word (a control) is all `before word` between its ends.
SEGMENTS = ("start", "before word", "word", "after word", "last")


@dataclass(frozen=True, order=True)
class Run:
    """One fine-tuning: a condition of the training data and a seed."""

    condition: str
    seed: int

    @property
    def name(self) -> str:
        """What every draw of the run is seeded by, too: no two runs share one."""
        return f"{self.condition}-{self.seed}"

    @classmethod
    def parse(cls, name: str) -> Run:
        """Inverse of :attr:`name`.

        Raises:
            ValueError: if ``name`` is not ``<condition>-<seed>``.
        """
        match = re.fullmatch(r"([a-z][a-z\d-]*)-(\d+)", name)
        if match is None:
            raise ValueError(f"a run is named <condition>-<seed> (mapped-0), got {name!r}")
        return cls(match[1], int(match[2]))


def assigned(condition: str, own: int, n_answers: int) -> int:
    """Which of a type's ``n_answers`` a condition teaches for what `mapped` teaches the ``own``.

    Conditions that teach none are asked about what `mapped` teaches.
    """
    return (own + ASSIGNED.get(condition, 0)) % n_answers


def checkpoint_name(fraction: float) -> str:
    """Name of the checkpoint after ``fraction`` of a run's steps, in percent: 0.25 -> ``025``."""
    return f"{round(fraction * 100):03d}"


def total_steps(n_examples: int, batch_size: int, epochs: float) -> int:
    """Optimiser's steps of a run; the last batch of an epoch may be small, an epoch may break off.

    The product is rounded before it is rounded up, for 0.1 epochs of 30 steps are 3 steps,
    whatever 0.1 is in binary.
    """
    return math.ceil(round(epochs * math.ceil(n_examples / batch_size), 9))


def checkpoint_steps(fractions: Sequence[float], total: int) -> dict[float, int]:
    """After which step each checkpoint is taken: fraction of ``total``, rounded up."""
    return {fraction: math.ceil(round(fraction * total, 9)) for fraction in fractions}


def random_change(draw: int) -> str:
    return f"random-{draw}"


def derived_seed(*parts: str | int) -> int:
    """A seed of its own for each thing that draws at random, the same in every process."""
    return zlib.crc32("/".join(str(part) for part in parts).encode()) % 2**31


def checkpoints_in(directory: Path) -> list[Path]:
    """Adapter directories of a run, models/checkpoints/<run>, the earliest first.

    Raises:
        InputError: if there is none.
    """
    if found := sorted(path.parent for path in directory.glob("*/progress.json")):
        return found
    problem = Problem(
        where=directory.as_posix(),
        got="no checkpoint",
        rule="a run is fine-tuned before its checkpoints are used",
        remedy=f"run `dvc repro finetune@{directory.name}`, or `dvc pull` where a remote holds it",
    )
    raise InputError(problem)

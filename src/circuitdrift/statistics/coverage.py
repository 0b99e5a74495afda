"""How often an interval over words holds the truth, by simulation at a study's own sizes.

A simulated study draws the words' values around a mean that is known, takes Student's interval
with pooled within-type variance, and counts how often it holds that mean. Models of the values:

- *difference, log ratio*: normal. They are means over many pairs of runs and prompts, without an
  end near their values. Coverage depends on the numbers of words alone.
- *share*: a word's rate is Beta of the mean and of the spread between words, for it lies in 0..1
  and is skewed near an end; what is measured is binomial with as many trials as runs x frames were
  averaged. The trials' own variance is taken off the observed spread first, as it is in it. A
  share that is no count (a probability) has no trials.
- *ratio* (distance closed): above is ratio x below + normal noise; below is normal, cut where words
  are left out, with the words' own mean and spread. Words with a small denominator vary more.

The types of words have one mean here: a difference between them is in no interval's variance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from circuitdrift.statistics.words import Array, half_widths, pooled_variance

if TYPE_CHECKING:
    from circuitdrift.params import Params, Statistics

SMALL = 0.01  # between words of which all were alike: some spread there must be
END = 0.005  # a share's mean stays this far from 0 and 1, where nothing could vary
LARGEST = 0.9  # of the largest variance that a share of its mean can have


@dataclass(frozen=True)
class Model:
    """What words' values are like.

    Attributes:
        trials: of a share that counts; 0 of one that does not.
        below: of a ratio, mean and spread of the denominators and the smallest that is not left
            out.
    """

    kind: Literal["difference", "log ratio", "share", "ratio"]
    trials: int = 0
    below: tuple[float, float, float] = (1.0, 0.0, 0.0)

    @property
    def normal(self) -> bool:
        return self.kind in ("difference", "log ratio")


DIFFERENCE, LOG_RATIO, PROBABILITY = Model("difference"), Model("log ratio"), Model("share")


@dataclass(frozen=True)
class Checked:
    """A mean over words and its interval; nan where it is withheld, or there can be none.

    Attributes:
        coverage: the farthest from the confidence of those simulated; nan where there is none.
        rows: of the table `coverage`: mean_at, mean, spread, coverage, printed.
    """

    mean: float
    low: float = math.nan
    high: float = math.nan
    coverage: float = math.nan
    rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def withheld(self) -> bool:
        return math.isnan(self.low)


def checked_interval(
    values: ArrayLike,
    types: Sequence[str],
    model: Model,
    params: Params,
    at: Mapping[str, float] | None = None,
) -> Checked:
    """Mean over words with its interval, unless its simulated coverage is not what is allowed.

    Args:
        values: ``[n_words]``.
        types: each word's ``[n_words]``.
        at: where the simulated mean lies, by name; at the observed one where nothing is given.
    """
    numbers, sizes = np.asarray(values, dtype=np.float64), tuple(sorted(Counter(types).values()))
    mean = float(numbers.mean()) if numbers.size else math.nan
    if sum(sizes) == len(sizes):  # no type has two words
        return Checked(mean)
    spread, settings = float(np.sqrt(pooled_variance(numbers, types))), params.statistics
    rows: list[dict[str, Any]] = []
    for name, true in (at or {"estimate": mean}).items():
        # Of normal values it depends on the numbers of words alone.
        of = (0.0, 1.0) if model.normal else (true, _between(model, mean, spread))
        share = simulated_coverage(model, *of, sizes, settings)
        rows.append({"mean_at": name, "mean": true, "spread": spread, "coverage": share})
    worst = max((row["coverage"] for row in rows), key=lambda c: abs(c - settings.confidence))
    least, most = params.verdicts.coverage
    printed = least <= worst <= most
    half = float(half_widths(numbers, types, settings.confidence)) if printed else math.nan
    said = tuple({**row, "printed": printed} for row in rows)
    return Checked(mean, mean - half, mean + half, worst, said)


@lru_cache
def simulated_coverage(
    model: Model, mean: float, spread: float, sizes: tuple[int, ...], settings: Statistics
) -> float:
    """Share of simulated studies whose interval holds ``mean``.

    Args:
        spread: standard deviation between the words of a type.
        sizes: words of each type.
    """
    rng = np.random.default_rng(settings.seed)
    shape = (settings.coverage_samples, sum(sizes))
    if model.kind == "share":
        mean = min(max(mean, END), 1 - END)
        values = _shares(rng, shape, mean, spread, model.trials)
    elif model.kind == "ratio":
        values = _ratios(rng, shape, mean, spread, model.below)
    else:
        values = rng.normal(mean, spread, shape)
    half = half_widths(values, np.repeat(np.arange(len(sizes)), sizes), settings.confidence)
    return float((np.abs(values.mean(1) - mean) <= half).mean())


def _between(model: Model, mean: float, spread: float) -> float:
    """Spread between words without that of the trials."""
    noise = mean * (1 - mean) / model.trials if model.trials else 0.0
    return math.sqrt(max(spread**2 - noise, SMALL**2))


def _shares(
    rng: np.random.Generator, shape: tuple[int, int], mean: float, spread: float, trials: int
) -> Array:
    size = max(mean * (1 - mean) / spread**2, 1 / LARGEST) - 1
    rates = rng.beta(mean * size, (1 - mean) * size, shape)
    return rng.binomial(trials, rates) / trials if trials else rates


def _ratios(
    rng: np.random.Generator,
    shape: tuple[int, int],
    mean: float,
    spread: float,
    below: tuple[float, float, float],
) -> Array:
    from scipy import stats

    center, scale, smallest = below[0], max(below[1], SMALL), below[2]
    denominators = stats.truncnorm.ppf(
        rng.random(shape), (smallest - center) / scale, np.inf, center, scale
    )
    noise = rng.normal(0, spread / np.sqrt((denominators**-2.0).mean()), shape)
    return np.asarray(mean + noise / denominators)

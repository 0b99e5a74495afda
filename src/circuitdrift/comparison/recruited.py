"""Recruited and retired features: whose effect on a word training on the mapping changed.

Compared are the runs of `mapped` and of `shuffled`, which saw the same sentences without a mapping
to learn. Comparisons of like with like stand beside that, in which nothing is to be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitdrift.circuits.circuit import Circuit
from circuitdrift.comparison.decoders import Feature
from circuitdrift.comparison.distance import Array
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import Run, feature_name
from circuitdrift.statistics.intervals import hedges_g, hierarchical_difference
from circuitdrift.statistics.permutation import many_features_test

if TYPE_CHECKING:
    from circuitdrift.params import Compare, Statistics

Indices = NDArray[np.signedinteger[Any]]
Word = tuple[str | None, str | None]
"""(type, word)."""

MAPPED, SHUFFLED = "mapped", "shuffled"
RECRUITED, RETIRED = "recruited", "retired"
FEWEST_RUNS = 2  # below, a group's variance cannot be estimated


@dataclass(frozen=True)
class Contrast:
    """Effects of every feature, summed over positions, in the base model and two groups of runs."""

    words: tuple[Word, ...]  # of each prompt
    base: Array  # [n_prompts, n_layers, d_mlp], logits
    a: Array  # [n_runs, n_prompts, n_layers, d_mlp], logits
    b: Array  # of the other runs, alike

    def prompts_of(self, word: Word) -> Indices:
        """As indices."""
        return np.flatnonzero([own == word for own in self.words])


@dataclass(frozen=True)
class FeatureEffects:
    """Effects of every feature, summed over positions, in all models of the study.

    Each array is ``[n_prompts, n_layers, d_mlp]``, float32, in logits.
    """

    prompts: Sequence[TracedPrompt]  # in the arrays' order
    base: Array
    runs: Mapping[Run, Array]  # of each run's last checkpoint
    random: Mapping[Run, Array]  # of the first random adapter beside it

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
                sides = (" ".join(map(str, side)) for side in (one, other))
                yield f"{name} {' vs '.join(sides)}", self._contrast(role, a, b)
        if min(len(random_mapped), len(random_shuffled)) >= FEWEST_RUNS:
            name = f"{MAPPED} random-0 vs {SHUFFLED} random-0"
            yield name, self._contrast(role, random_mapped, random_shuffled)

    def _contrast(self, role: str, a: Mapping[int, Array], b: Mapping[int, Array]) -> Contrast:
        chosen = self.of_role(role)
        sides = (np.stack([group[seed][chosen] for seed in sorted(group)]) for group in (a, b))
        words = tuple((self.prompts[index].type, self.prompts[index].word) for index in chosen)
        return Contrast(words, self.base[chosen], *sides)


def feature_effects(circuits: Sequence[Circuit]) -> Array:
    """Effects summed over positions ``[n_prompts, n_layers, d_mlp]``, float32, logits."""
    return np.stack([circuit.effects.sum(1) for circuit in circuits])


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


@dataclass(frozen=True)
class Search:
    """The features that changed, of all that were tested.

    Attributes:
        found: a row per word and feature: type, word, layer, feature; p and q of the test over
            runs, q the false discovery rate among all that were tested; agreement, the share of
            runs and prompts on which the change from base has its mean's sign.
    """

    found: pd.DataFrame
    n_tested: int  # pairs of word and feature
    n_reliable: int  # those of them that would be found if no difference were too small to count


def find_features(contrast: Contrast, settings: Compare, statistics: Statistics) -> Search:
    """The features whose effect on a word differs between the runs of group a and those of b.

    Of every word the ``settings.tested_per_word`` strongest features are tested, all words
    together, on each run's mean over the word's prompts. Found is what reaches ``settings.fdr``,
    differs by at least ``settings.min_effect`` logits, and changes from base in one direction on at
    least ``settings.min_agreement`` of group a's runs and prompts. Between the conditions half of
    all features differ reliably, most of them by next to nothing: a test alone would name too many.
    """
    names = list(dict.fromkeys(contrast.words))
    parts = [_word_values(contrast, word, settings.tested_per_word) for word in names]
    chosen, agreement, a, b = (
        np.concatenate(values, axis=-1) for values in zip(*parts, strict=True)
    )
    words = np.repeat(np.array(names, dtype=object), [len(part[0]) for part in parts], axis=0)
    p, q = many_features_test(a, b, statistics)
    reliable = (q <= settings.fdr) & (agreement >= settings.min_agreement)
    large = np.abs(a.mean(0) - b.mean(0)) >= settings.min_effect
    places = np.flatnonzero(reliable & large)
    layers, features = np.unravel_index(chosen[places], contrast.base.shape[1:])
    found = pd.DataFrame(
        {
            "type": words[places, 0],
            "word": words[places, 1],
            "layer": layers,
            "feature": features,
            "p": p[places],
            "q": q[places],
            "agreement": agreement[places],
        }
    )
    return Search(found, chosen.size, int(reliable.sum()))


def _word_values(
    contrast: Contrast, word: Word, n_tested: int
) -> tuple[Indices, Array, Array, Array]:
    """A word's strongest features: flat index and agreement ``[n]``, means of a and b
    ``[n_runs, n]``."""
    prompts = contrast.prompts_of(word)
    base = contrast.base[prompts].reshape(len(prompts), -1)
    a, b = (side[:, prompts].reshape(len(side), *base.shape) for side in (contrast.a, contrast.b))
    # The strongest over the base and all runs alike: the rest, six of seven in the default model,
    # have effects too small to matter and would only dilute the correction for multiple tests.
    # Because the choice does not look at the runs' labels, a test by permuting labels keeps its
    # level (Bourgon, Gentleman and Huber 2010, PNAS 107).
    strength = np.abs(np.concatenate([base[None], a, b])).mean((0, 1))
    chosen = np.sort(np.argsort(-strength, kind="stable")[:n_tested])
    change = a[:, :, chosen] - base[:, chosen]
    agrees = np.sign(change) == np.sign(change.mean((0, 1)))
    mean_a, mean_b = (side[:, :, chosen].mean(1, dtype=np.float64) for side in (a, b))
    return chosen, agrees.mean((0, 1)), mean_a, mean_b


TokensOf = Callable[[Sequence[Feature]], Mapping[Feature, dict[str, str]]]
"""What each feature ``promotes`` and ``suppresses``."""


def recruitment(
    effects: FeatureEffects, settings: Compare, statistics: Statistics, tokens_of: TokensOf
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The features that `mapped` moves and `shuffled` does not, and what every search found.

    Features are found on discovery prompts and confirmed on evaluation prompts. Where there are too
    few runs, only those searches are made that can be.

    Yields:
        the name of a table and rows of it.
    """
    discovery, evaluation = effects.mapping("discovery"), effects.mapping("evaluation")
    if discovery is not None and evaluation is not None:
        search = find_features(discovery, settings, statistics)
        yield "recruitment_nulls", [_described(f"{MAPPED} vs {SHUFFLED}", discovery, search)]
        tokens = tokens_of(_features(search.found))
        prompts = [effects.prompts[index].id for index in effects.of_role("discovery")]
        rows = recruited_rows(search.found, discovery, evaluation, prompts, statistics)
        yield "recruited", [row | tokens[row["layer"], row["feature"]] for row in rows]
    for name, null in effects.nulls("discovery"):
        search = find_features(null, settings, statistics)
        yield "recruitment_nulls", [_described(name, null, search)]


def recruited_rows(
    found: pd.DataFrame,
    discovery: Contrast,
    evaluation: Contrast,
    prompts: Sequence[str],
    settings: Statistics,
) -> list[dict[str, Any]]:
    """A row for each feature found, by word, layer and feature.

    Direction is `recruited` where the mean |effect| is larger in `mapped` than in the base model,
    and `retired` where it is not. Differences are of `mapped` minus `shuffled`. Prompts are the
    discovery prompts on which it acts: where its change from base, mean over seeds, is at least
    half as large as on average.

    Args:
        found: of a :class:`Search` on the discovery prompts.
        discovery, evaluation: the prompts of a role; group a is `mapped`, group b `shuffled`.
        prompts: ids of the discovery prompts.
    """
    rows = []
    for values, place in zip(found.itertuples(index=False), _features(found), strict=True):
        row = dict(zip(found.columns, values, strict=True))
        word = row["type"], row["word"]
        base, mapped, shuffled = _effects_of(discovery, word, place)
        _, unseen_mapped, unseen_shuffled = _effects_of(evaluation, word, place)
        change = np.abs((mapped - base).mean(0))
        acting = discovery.prompts_of(word)[change >= change.mean() / 2]
        grows = np.abs(mapped).mean() > np.abs(base).mean()
        rows.append(
            {
                **row,
                "name": feature_name(*place),
                "direction": RECRUITED if grows else RETIRED,
                "effect_base": base.mean(),
                "effect_mapped": mapped.mean(),
                "effect_shuffled": shuffled.mean(),
                **_interval(mapped, shuffled, "", settings),
                "effect_size": hedges_g(mapped.mean(1), shuffled.mean(1)),
                **_interval(unseen_mapped, unseen_shuffled, "evaluation_", settings),
                "prompts": ";".join(prompts[prompt] for prompt in acting),
            }
        )
    return rows


def _features(found: pd.DataFrame) -> list[Feature]:
    return list(zip(found["layer"].tolist(), found["feature"].tolist(), strict=True))


def _effects_of(contrast: Contrast, word: Word, place: Feature) -> tuple[Array, Array, Array]:
    """A feature's effects on a word's prompts in the base ``[n_prompts]`` and in both groups
    ``[n_runs, n_prompts]``, logits."""
    prompts = contrast.prompts_of(word)
    base, a, b = (
        values[..., prompts, place[0], place[1]].astype(np.float64)
        for values in (contrast.base, contrast.a, contrast.b)
    )
    return base, a, b


def _interval(a: Array, b: Array, prefix: str, settings: Statistics) -> dict[str, float]:
    interval = hierarchical_difference(a, b, settings)
    return {
        f"{prefix}difference": interval.mean,
        f"{prefix}low": interval.low,
        f"{prefix}high": interval.high,
    }


def _described(name: str, contrast: Contrast, search: Search) -> dict[str, Any]:
    return {
        "comparison": name,
        "n_a": len(contrast.a),
        "n_b": len(contrast.b),
        "n_tested": search.n_tested,
        "n_reliable": search.n_reliable,
        "n_found": len(search.found),
    }

"""Recruited and retired features: whose effect one group of runs changed and another did not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circuitdrift.comparison import Array
from circuitdrift.config.compare import Compare
from circuitdrift.config.statistics import Statistics
from circuitdrift.contrasts import Contrast, Indices, Word
from circuitdrift.statistics.permutation import many_features_test


@dataclass(frozen=True)
class FoundFeatures:
    """The features that changed: one entry for each word and feature ``[n_found]``.

    Attributes:
        words: (type, word).
        layers, features: of the model.
        p, q: of the test over runs, q the false discovery rate among all that were tested.
        agreement: share of runs and prompts on which the change from base has its mean's sign.
        n_tested: pairs of word and feature that were tested.
        n_reliable: those of them that would be found if no difference were too small to count.
    """

    words: tuple[Word, ...]
    layers: Indices
    features: Indices
    p: Array
    q: Array
    agreement: Array
    n_tested: int
    n_reliable: int


def find_features(contrast: Contrast, settings: Compare, statistics: Statistics) -> FoundFeatures:
    """The features whose effect on a word differs between the runs of group a and those of b.

    Of every word the ``settings.tested_per_word`` strongest features are tested, all words
    together, on each run's mean over the word's prompts. Found is what reaches ``settings.fdr``,
    differs by at least ``settings.min_effect`` logits, and changes from base in one direction on at
    least ``settings.min_agreement`` of group a's runs and prompts. Between the conditions half of
    all features differ reliably, most of them by next to nothing: a test alone would name too many.

    Raises:
        ValueError: if a group has fewer than two runs.
    """
    parts = [
        _word_values(contrast, word, settings.tested_per_word)
        for word in dict.fromkeys(contrast.words)
    ]
    words = [part.word for part in parts for _ in part.chosen]
    chosen, agreement = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("chosen", "agreement")
    )
    a, b = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in "ab")
    tests = many_features_test(a, b, statistics)
    reliable = (tests.q <= settings.fdr) & (agreement >= settings.min_agreement)
    large = np.abs(a.mean(0) - b.mean(0)) >= settings.min_effect
    found = np.flatnonzero(reliable & large)
    layers, features = np.unravel_index(chosen[found], contrast.base.shape[1:])
    return FoundFeatures(
        words=tuple(words[index] for index in found),
        layers=layers,
        features=features,
        p=tests.p[found],
        q=tests.q[found],
        agreement=agreement[found],
        n_tested=chosen.size,
        n_reliable=int(reliable.sum()),
    )


@dataclass(frozen=True)
class _WordValues:
    """A word's tested features: flat index and agreement ``[n]``, mean effects ``[n_runs, n]``."""

    word: Word
    chosen: Indices
    agreement: Array
    a: Array
    b: Array


def _word_values(contrast: Contrast, word: Word, n_tested: int) -> _WordValues:
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
    return _WordValues(
        word=word,
        chosen=chosen,
        agreement=agrees.mean((0, 1)),
        a=a[:, :, chosen].mean(1, dtype=np.float64),
        b=b[:, :, chosen].mean(1, dtype=np.float64),
    )

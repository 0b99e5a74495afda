"""Features whose effect moved from the base model's, counted for each run against chance.

Unlike the search for recruited features this needs no second condition and no second seed, and so
it cannot say what moved them: it is for comparing experiments of one run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.comparison import Array
from circuitdrift.config.compare import Compare
from circuitdrift.contrasts import FeatureEffects, Word
from circuitdrift.identifiers import TRAINED, random_change

COLUMNS = ("run", "condition", "seed", "change", "n_tested", "n_grown", "n_shrunk")


def moved_features(effects: FeatureEffects, settings: Compare) -> pd.DataFrame:
    """Count the features (word, layer, neuron) that moved, on discovery prompts.

    A feature has moved on a word if its effect, summed over positions, differs from the base
    model's by at least ``settings.min_effect`` logits, mean over the word's prompts, and changes
    in that direction on at least ``settings.min_agreement`` of them. It has grown if its mean
    |effect| has. The same count under a random adapter of the same norms is the null.

    Returns:
        a row for each run's latest checkpoint (change ``trained``) and for the random adapter
        beside it (``random-0``), where there is one.
    """
    discovery = effects.of_role("discovery")
    words: list[Word] = [(effects.prompts[i].type, effects.prompts[i].word) for i in discovery]
    base = effects.base[discovery]
    rows = [
        {
            "run": run.name,
            "condition": run.condition,
            "seed": run.seed,
            "change": change,
            **_counts(base, of_runs[run][discovery], words, settings),
        }
        for change, of_runs in ((TRAINED, effects.runs), (random_change(0), effects.random))
        for run in sorted(of_runs)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _counts(base: Array, moved: Array, words: list[Word], settings: Compare) -> dict[str, Any]:
    """Both ``[n_prompts, n_layers, d_mlp]``; a word for each prompt."""
    grown, shrunk = np.sum(list(_of_words(base, moved, words, settings)), axis=0)
    n_words = len(set(words))
    return {
        "n_tested": n_words * base[0].size,
        "n_grown": int(grown),
        "n_shrunk": int(shrunk),
    }


def _of_words(
    base: Array, moved: Array, words: list[Word], settings: Compare
) -> Iterator[tuple[int, int]]:
    for word in dict.fromkeys(words):
        own = np.flatnonzero([each == word for each in words])
        before, after = base[own], moved[own]
        change = after - before
        mean = change.mean(0, dtype=np.float64)
        agreement = (np.sign(change) == np.sign(mean)).mean(0)
        counts = (np.abs(mean) >= settings.min_effect) & (agreement >= settings.min_agreement)
        grows = np.abs(after).mean(0) > np.abs(before).mean(0)
        yield int((counts & grows).sum()), int((counts & ~grows).sum())

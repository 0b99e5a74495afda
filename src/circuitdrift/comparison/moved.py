"""Features whose effect moved: counted for each run, and the one whose move was planted.

Unlike the search for recruited features the count needs no second condition and no second seed, and
so it cannot say what moved them: it is for comparing experiments of one run. The planted change is
the positive control: the comparison must find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from circuitdrift.circuits.circuit import Circuit
from circuitdrift.comparison.distance import Array
from circuitdrift.comparison.recruited import FeatureEffects, Word, feature_effects
from circuitdrift.core.study import TRAINED, Run, random_change

if TYPE_CHECKING:
    from circuitdrift.params import Compare


def moved_features(effects: FeatureEffects, settings: Compare) -> Iterator[dict[str, Any]]:
    """Count the features (word, layer, neuron) that moved, on discovery prompts.

    A feature has moved on a word if its effect, summed over positions, differs from the base
    model's by at least ``settings.min_effect`` logits, mean over the word's prompts, and changes
    in that direction on at least ``settings.min_agreement`` of them. It has grown if its mean
    |effect| has. The same count under a random adapter of the same norms is the null.

    Yields:
        a row for each run's last checkpoint (change ``trained``) and for the random adapter
        beside it (``random-0``), where there is one.
    """
    discovery = effects.of_role("discovery")
    words: list[Word] = [(effects.prompts[i].type, effects.prompts[i].word) for i in discovery]
    base = effects.base[discovery]
    for change, of_runs in ((TRAINED, effects.runs), (random_change(0), effects.random)):
        for run in sorted(of_runs):
            counts = list(_counts(base, of_runs[run][discovery], words, settings))
            grown, shrunk = np.sum(counts, axis=0).tolist()
            yield {
                "run": run.name,
                **vars(run),
                "change": change,
                "n_tested": len(counts) * base[0].size,
                "n_grown": grown,
                "n_shrunk": shrunk,
            }


def _counts(
    base: Array, moved: Array, words: list[Word], settings: Compare
) -> Iterator[tuple[int, int]]:
    """How many features grew and shrank on each word; arrays ``[n_prompts, n_layers, d_mlp]``."""
    for word in dict.fromkeys(words):
        own = np.flatnonzero([each == word for each in words])
        before, after = base[own], moved[own]
        change = after - before
        mean = change.mean(0, dtype=np.float64)
        agreement = (np.sign(change) == np.sign(mean)).mean(0)
        counts = (np.abs(mean) >= settings.min_effect) & (agreement >= settings.min_agreement)
        grows = np.abs(after).mean(0) > np.abs(before).mean(0)
        yield int((counts & grows).sum()), int((counts & ~grows).sum())


def positive_control(
    effects: FeatureEffects, run: Run, planted: Mapping[str, Any], circuits: Sequence[Circuit]
) -> dict[str, Any]:
    """Whether the comparison finds the change that was planted in a run's last checkpoint.

    Args:
        planted: name, layer, feature and scale of the change.
        circuits: of the changed model, of some of the prompts.
    """
    same = [effects.prompts.index(circuit.prompt) for circuit in circuits]
    place = {name: planted[name] for name in ("layer", "feature")}
    rank = planted_rank(effects.runs[run][same], feature_effects(circuits), **place)
    described = {"name": planted["name"], **place, "scale": planted["scale"]}
    return {"run": run.name, **described, **rank}


def planted_rank(before: Array, after: Array, layer: int, feature: int) -> dict[str, Any]:
    """Where the planted feature stands among all, by |mean change over prompts|.

    Args:
        before, after: effects summed over positions, without and with the planted change
            ``[n_prompts, n_layers, d_mlp]``.

    Returns:
        rank: 1 where no other feature changed as much; equals count against it.
        change: the planted feature's mean change, in logits.
        runner_up: that of the other feature that changed most.
    """
    change = (after.astype(np.float64) - before).mean(0)
    planted = change[layer, feature]
    others = np.delete(change.ravel(), layer * change.shape[1] + feature)
    return {
        "rank": 1 + int(np.count_nonzero(np.abs(others) >= abs(planted))),
        "change": float(planted),
        "runner_up": float(others[np.argmax(np.abs(others))]),
    }

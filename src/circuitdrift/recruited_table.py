"""The table of recruited and retired features: where, which way, how much and how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitdrift.comparison import Array
from circuitdrift.config.statistics import Statistics
from circuitdrift.contrasts import Contrast, Indices, Word
from circuitdrift.identifiers import feature_name
from circuitdrift.recruitment import FoundFeatures
from circuitdrift.statistics.effect_size import hedges_g
from circuitdrift.statistics.intervals import hierarchical_difference

RECRUITED, RETIRED = "recruited", "retired"
COLUMNS = (
    "word",
    "type",
    "layer",
    "feature",
    "name",
    "direction",
    "effect_base",
    "effect_mapped",
    "effect_shuffled",
    "difference",
    "low",
    "high",
    "effect_size",
    "p",
    "q",
    "agreement",
    "evaluation_difference",
    "evaluation_low",
    "evaluation_high",
    "prompts",
    "promotes",
    "suppresses",
)


def recruited_table(
    found: FoundFeatures,
    discovery: Contrast,
    evaluation: Contrast,
    *,
    prompts: Sequence[str],
    tokens: Mapping[tuple[int, int], tuple[str, str]],
    settings: Statistics,
) -> pd.DataFrame:
    """A row for each feature found, by word, the largest |difference| of a word first.

    Direction is `recruited` where the mean |effect| is larger in `mapped` than in the base model,
    and `retired` where it is not. Differences are of `mapped` minus `shuffled`. Prompts are the
    discovery prompts on which it acts: where its change from base, mean over seeds, is at least
    half as large as on average.

    Args:
        found: from the discovery prompts.
        discovery, evaluation: the prompts of a role; group a is `mapped`, group b `shuffled`.
        prompts: ids of the discovery prompts.
        tokens: what each feature (layer, neuron) promotes and suppresses.
    """
    order = list(dict.fromkeys(discovery.words))
    rows = []
    columns = (found.words, found.layers.tolist(), found.features.tolist())
    for index, (word, layer, feature) in enumerate(zip(*columns, strict=True)):
        effect = _FeatureEffect.of(discovery, word, layer, feature)
        unseen = _FeatureEffect.of(evaluation, word, layer, feature)
        acting = effect.prompts[effect.acts]
        rows.append(
            {
                "word": word[1],
                "type": word[0],
                "layer": layer,
                "feature": feature,
                "name": feature_name(layer, feature),
                **effect.described(),
                **_interval(effect, "", settings),
                "effect_size": hedges_g(effect.mapped.mean(1), effect.shuffled.mean(1)),
                "p": found.p[index],
                "q": found.q[index],
                "agreement": found.agreement[index],
                **_interval(unseen, "evaluation_", settings),
                "prompts": ";".join(prompts[prompt] for prompt in acting),
                **dict(zip(("promotes", "suppresses"), tokens[layer, feature], strict=True)),
            }
        )
    rows.sort(key=lambda row: (order.index((row["type"], row["word"])), -abs(row["difference"])))
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class _FeatureEffect:
    """A feature's effects on a word's prompts, in logits.

    Attributes:
        prompts: the word's, as indices into all ``[n_prompts]``.
        base: ``[n_prompts]``.
        mapped, shuffled: ``[n_seeds, n_prompts]``.
    """

    prompts: Indices
    base: Array
    mapped: Array
    shuffled: Array

    @classmethod
    def of(cls, contrast: Contrast, word: Word, layer: int, feature: int) -> _FeatureEffect:
        prompts = contrast.prompts_of(word)
        return cls(
            prompts,
            contrast.base[prompts, layer, feature].astype(np.float64),
            contrast.a[:, prompts, layer, feature].astype(np.float64),
            contrast.b[:, prompts, layer, feature].astype(np.float64),
        )

    @property
    def acts(self) -> NDArray[np.bool_]:
        change = np.abs((self.mapped - self.base).mean(0))
        return change >= change.mean() / 2

    def described(self) -> dict[str, Any]:
        grows = np.abs(self.mapped).mean() > np.abs(self.base).mean()
        return {
            "direction": RECRUITED if grows else RETIRED,
            "effect_base": self.base.mean(),
            "effect_mapped": self.mapped.mean(),
            "effect_shuffled": self.shuffled.mean(),
        }


def _interval(effect: _FeatureEffect, prefix: str, settings: Statistics) -> dict[str, float]:
    interval = hierarchical_difference(effect.mapped, effect.shuffled, settings)
    return {
        f"{prefix}difference": interval.mean,
        f"{prefix}low": interval.low,
        f"{prefix}high": interval.high,
    }

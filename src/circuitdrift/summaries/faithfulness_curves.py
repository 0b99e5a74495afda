"""Faithfulness curves over circuit sizes and the areas under them, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.config.statistics import Statistics
from circuitdrift.faithfulness import cmd, cpr
from circuitdrift.statistics.intervals import Interval
from circuitdrift.summaries.grids import INTERVAL, Array, cells, size
from circuitdrift.summaries.interventions import SMALLEST_DIFFERENCE, share_of, without_draw

FAITHFULNESS, CPR, CMD = "faithfulness", "CPR", "CMD"
KEY = ["condition", "checkpoint", "ablation", "circuit"]


def faithfulness_summary(faithfulness: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """f of each circuit at each size, and CPR and CMD of each curve, over runs and prompts.

    Random circuits are averaged over draws. Everything is a ratio of means, and empty where
    |full - empty| is below a tenth of a logit; the areas need two sizes.

    Returns:
        condition, checkpoint, ablation, circuit (own, base, random), measure (faithfulness, CPR,
        CMD), size (empty for the areas), mean, low, high, n_seeds, n_prompts.
    """
    table = faithfulness.assign(
        circuit=without_draw(faithfulness["circuit"]),
        kept=faithfulness["value"] - faithfulness["empty"],
        whole=faithfulness["full"] - faithfulness["empty"],
    )
    rows = [
        {**dict(zip(KEY, key, strict=True)), **row}
        for key, curve in table.groupby(KEY, sort=True)
        for row in _curve(curve, settings)
    ]
    return pd.DataFrame(rows, columns=[*KEY, "measure", "size", *INTERVAL])


def _curve(curve: pd.DataFrame, settings: Statistics) -> Iterator[dict[str, Any]]:
    sizes = sorted(curve["size"].unique().tolist())
    kept = np.stack(
        [cells(curve[curve["size"] == of], "kept").to_numpy(np.float64) for of in sizes], axis=-1
    )
    whole = cells(curve, "whole").to_numpy(np.float64)
    for index, of in enumerate(sizes):
        share = share_of(kept[..., index], whole, settings)
        yield {"measure": FAITHFULNESS, "size": of, **share}
    if len(sizes) > 1:
        # The area is linear in f, so the ratio of the areas' means is the area of the ratios.
        yield {"measure": CPR, "size": math.nan, **share_of(cpr(sizes, kept), whole, settings)}
        distance = _model_distance(sizes, kept, whole, settings)
        yield {"measure": CMD, "size": math.nan, **vars(distance), **size(whole)}


def _model_distance(
    sizes: list[float], kept: Array, whole: Array, settings: Statistics
) -> Interval:
    """CMD with its interval, seeds and prompts drawn as in ``hierarchical_mean``.

    Samples in which |full - empty| has the other sign have no f: their distance is infinite.

    Args:
        kept: ``[n_seeds, n_prompts, n_sizes]``.
        whole: ``[n_seeds, n_prompts]``.
    """
    if abs(whole.mean()) < SMALLEST_DIFFERENCE:
        return Interval(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(settings.seed)
    seeds, prompts = (
        rng.multinomial(n, np.full(n, 1 / n), settings.bootstrap_samples) / n for n in whole.shape
    )
    tops = np.einsum("bs,spk,bp->bk", seeds, kept, prompts, optimize=True)
    bottoms = np.einsum("bs,sp,bp->b", seeds, whole, prompts, optimize=True)
    right = bottoms * np.sign(whole.mean()) > 0
    distances = np.full(len(bottoms), np.inf)
    distances[right] = cmd(sizes, tops[right] / bottoms[right, None])
    tail = (1 - settings.confidence) / 2
    low = np.quantile(distances, tail, method="lower")
    high = np.quantile(distances, 1 - tail, method="higher")
    estimate = cmd(sizes, kept.mean(axis=(0, 1)) / whole.mean())
    return Interval(float(estimate), float(low), float(high))

"""What interventions in the real models say of the circuits, over runs and prompts.

How much of a model's behaviour a circuit keeps, and the areas under that over circuit sizes, follow
MIB, the Mechanistic Interpretability Benchmark (Mueller et al. 2025, arXiv 2504.13151).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from circuitdrift.report.summaries import INTERVAL, Array, Row, grid, per_group, size, with_interval
from circuitdrift.statistics.intervals import Interval, ratio_of_means

if TYPE_CHECKING:
    from circuitdrift.params import Statistics

FAITHFULNESS, CPR, CMD = "faithfulness", "CPR", "CMD"
RANDOM = "random"
RECRUITED = "recruited"
BEYOND = "recruited beyond random"
SUFFICIENCY, NECESSITY = "sufficiency", "necessity"

# Below this difference of mean targets, in logits, a share of it means nothing.
SMALLEST_DIFFERENCE = 0.1
UNDEFINED = Interval(math.nan, math.nan, math.nan)


def cpr(sizes: Sequence[float], f: ArrayLike) -> NDArray[np.float64]:
    """Circuit performance ratio: the integral of f over circuit sizes; higher is better.

    By the trapezoid rule over the sizes as they are, shares of all nodes on a linear axis, from the
    smallest to the largest given, as MIB has it: nothing is added at size 0, so the full model's
    is 1 minus the smallest size.

    Args:
        sizes: ascending, 0..1 ``[n_sizes]``.
        f: faithfulness at each ``[..., n_sizes]``.

    Raises:
        ValueError: if the sizes do not ascend.
    """
    if not (np.diff(sizes) > 0).all():
        raise ValueError(f"sizes must ascend, got {list(sizes)}")
    return np.asarray(np.trapezoid(np.asarray(f, float), sizes, axis=-1))


def cmd(sizes: Sequence[float], f: ArrayLike) -> NDArray[np.float64]:
    """Circuit-model distance: the integral of |1 - f| over circuit sizes; 0 is best.

    As :func:`cpr`, for circuits that are to do what the model does and no more.
    """
    return cpr(sizes, np.abs(1 - np.asarray(f, float)))


def faithfulness_summary(faithfulness: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """f of each circuit at each size, and CPR and CMD of each curve, over runs and prompts.

    f(C) = (m(C) - m(empty)) / (m(full) - m(empty)), each m the mean over runs and prompts: a ratio
    of means, for a single prompt's denominator may be near 0. Random circuits are averaged over
    draws. Empty where |full - empty| is below a tenth of a logit; the areas need two sizes.

    Returns:
        condition, checkpoint, ablation, circuit (own, base, random), measure (faithfulness, CPR,
        CMD), size (empty for the areas), mean, low, high, n_seeds, n_prompts.
    """

    def curve(rows: pd.DataFrame) -> Iterable[Row]:
        sizes = sorted(rows["size"].unique().tolist())
        kept = np.stack([grid(rows[rows["size"] == of], "kept") for of in sizes], axis=-1)
        whole = grid(rows, "whole")
        for index, of in enumerate(sizes):
            share = _share_of(kept[..., index], whole, settings)
            yield {"measure": FAITHFULNESS, "size": of, **share}
        if len(sizes) > 1:
            # The area is linear in f, so the ratio of the areas' means is the area of the ratios.
            yield {"measure": CPR, "size": math.nan, **_share_of(cpr(sizes, kept), whole, settings)}
            distance = vars(_model_distance(sizes, kept, whole, settings))
            yield {"measure": CMD, "size": math.nan, **distance, **size(whole)}

    by = ["condition", "checkpoint", "ablation", "circuit"]
    table = _kept(faithfulness).assign(circuit=_without_draw(faithfulness["circuit"]))
    return per_group(table, by, curve, ["measure", "size", *INTERVAL])


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
        return UNDEFINED
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


def transfer_summary(transfer: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Faithfulness of the circuit of each checkpoint in the model of each checkpoint."""

    def share(rows: pd.DataFrame) -> Iterable[Row]:
        yield _share_of(grid(rows, "kept"), grid(rows, "whole"), settings)

    return per_group(_kept(transfer), ["condition", "circuit_from", "model"], share, INTERVAL)


def patching_summary(patching: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Which share of the change of the target moves with the patched nodes.

    Sufficiency starts at the base model and goes to the fine-tuned one, necessity the other way:
    (patched - start) / (goal - start), a ratio of means. Random node sets are averaged over draws;
    `recruited beyond random` is the difference of the two shares, prompt by prompt.
    """

    def shares(rows: pd.DataFrame) -> Iterable[Row]:
        moved = {}
        for nodes, of_nodes in rows.groupby("nodes", sort=True):
            moved[nodes] = grid(of_nodes, "moved")
            way = grid(of_nodes, "way")
            yield {"nodes": nodes, **_share_of(moved[nodes], way, settings)}
        if {RECRUITED, RANDOM} <= moved.keys():
            beyond = moved[RECRUITED] - moved[RANDOM]
            yield {"nodes": BEYOND, **_share_of(beyond, way, settings)}

    backwards = patching["direction"] == NECESSITY
    start = patching["base"].where(~backwards, patching["tuned"])
    goal = patching["tuned"].where(~backwards, patching["base"])
    table = patching.assign(
        nodes=_without_draw(patching["nodes"]), moved=patching["patched"] - start, way=goal - start
    )
    return per_group(table, ["condition", "direction"], shares, ["nodes", *INTERVAL])


def specificity_summary(specificity: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """By how many logits the target falls when a type's circuit is ablated, by kind of prompts."""
    table = specificity.assign(
        circuit=_without_draw(specificity["circuit"]),
        drop=specificity["full"] - specificity["ablated"],
    )
    return with_interval(table, ["condition", "circuit", "prompts"], "drop", settings)


def _kept(table: pd.DataFrame) -> pd.DataFrame:
    """With f's numerator and denominator, in logits."""
    empty = table["empty"]
    return table.assign(kept=table["value"] - empty, whole=table["full"] - empty)


def _without_draw(names: pd.Series) -> pd.Series:
    """``random-0``, ``random-1``, ... all as ``random``."""
    return names.str.replace(rf"^{RANDOM}-\d+$", RANDOM, regex=True)


def _share_of(numerator: Array, denominator: Array, settings: Statistics) -> dict[str, Any]:
    """A ratio of means with its interval; empty where the denominator's mean is next to nothing.

    Args:
        numerator, denominator: ``[n_runs, n_prompts]``, in logits.
    """
    if abs(denominator.mean()) < SMALLEST_DIFFERENCE:
        return {**vars(UNDEFINED), **size(denominator)}
    return {**vars(ratio_of_means(numerator, denominator, settings)), **size(denominator)}

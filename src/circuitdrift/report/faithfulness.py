"""How much of a model's behaviour a circuit keeps by itself, word by word.

Faithfulness and the areas under it over circuit sizes follow MIB, the Mechanistic Interpretability
Benchmark (Mueller et al. 2025, arXiv 2504.13151); sizes here stand on a log axis, for on a linear
one the largest hides all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from circuitdrift.statistics.coverage import DIFFERENCE, checked_interval

if TYPE_CHECKING:
    from circuitdrift.params import Params

ENOUGH = 0.8  # of the whole model's behaviour
SMALLEST_WHOLE = 1.0  # logits; below it a share of the whole means nothing
CURVE = ["model", "ablation", "circuit"]
WORD = ["type", "word"]


def by_word(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """f = (value - empty) / (full - empty) of each word, each of the three a mean over runs.

    Args:
        table: rows of faithfulness.csv or transfer.csv: type, word, value, full, empty (logits).
        by: the columns that tell a word's rows apart.

    Returns:
        ``by``, type, word, whole (full - empty), f; f is empty where the whole is below a logit.
    """
    means = table.groupby([*by, *WORD], as_index=False)[["value", "full", "empty"]].mean()
    whole = means["full"] - means["empty"]
    f = ((means["value"] - means["empty"]) / whole).where(whole >= SMALLEST_WHOLE)
    return means[[*by, *WORD]].assign(whole=whole, f=f)


def log_mean(sizes: ArrayLike, values: ArrayLike) -> float:
    """Mean of a curve over the logarithm of size: its area there, divided by its width.

    By the trapezoid rule from the smallest size to the largest; empty for a single size.

    Args:
        sizes: ascending, above 0 ``[n_sizes]``.
        values: ``[n_sizes]``.
    """
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    if logs.size < 2:
        return float("nan")
    return float(np.trapezoid(np.asarray(values, dtype=np.float64), logs) / (logs[-1] - logs[0]))


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """What each word's curve of f over sizes comes to.

    Args:
        curves: :func:`by_word` of faithfulness.csv by model, ablation, circuit and size.

    Returns:
        model, ablation, circuit, type, word, cpr (mean of f, higher is better), cmd (mean of
        |1 - f|, lower is better), smallest (the smallest size with f at .8, empty where none).
    """
    rows = []
    ordered = curves.dropna(subset="f").sort_values("size")
    for key, curve in ordered.groupby([*CURVE, *WORD], sort=True):
        areas_of_word = {
            "cpr": log_mean(curve["size"], curve["f"]),
            "cmd": log_mean(curve["size"], (1 - curve["f"]).abs()),
            "smallest": curve.loc[curve["f"] >= ENOUGH, "size"].min(),
        }
        rows.append({**dict(zip([*CURVE, *WORD], key, strict=True)), **areas_of_word})
    return pd.DataFrame(rows, columns=[*CURVE, *WORD, "cpr", "cmd", "smallest"])


def left_out(curves: pd.DataFrame) -> list[str]:
    """``type/word`` of those whose whole is below a logit in some model under some ablation."""
    words = curves[curves["f"].isna()][WORD].drop_duplicates().sort_values(WORD)
    return [f"{type_}/{word}" for type_, word in words.itertuples(index=False)]


def over_words(table: pd.DataFrame, by: Sequence[str], value: str, params: Params) -> pd.DataFrame:
    """Mean over words with its interval, blank where it is withheld or no type has two words.

    Args:
        table: one row per word of each group, with the columns ``by``, type and ``value``.

    Returns:
        ``by``, mean, low, high, n_words.
    """
    rows = []
    for key, group in table.dropna(subset=value).groupby(list(by), sort=True):
        over = checked_interval(group[value], list(group["type"]), DIFFERENCE, params)
        rows.append((*key, over.mean, over.low, over.high, len(group)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n_words"])


def falls(specificity: pd.DataFrame) -> pd.DataFrame:
    """By how many logits each unit's target falls when a circuit is ablated, mean over runs.

    Args:
        specificity: circuit (a type, random), prompts (a type, control), unit, full, ablated.

    Returns:
        circuit, prompts, unit, type (that of the prompts), fall.
    """
    table = specificity.assign(fall=specificity["full"] - specificity["ablated"])
    means = table.groupby(["circuit", "prompts", "unit"], as_index=False)["fall"].mean()
    return means.assign(type=means["prompts"])

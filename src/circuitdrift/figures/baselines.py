"""Drift against cheap measures: which tells what is learned next."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift.figures.style import NEUTRAL, Look, whiskers

OUTCOME_NAMES = {
    "gain_log_odds": "gain in log-odds of the right answer",
    "gain_p": "gain in probability of the right answer",
}


def forest_figure(baselines: pd.DataFrame) -> Figure:
    """Every rank correlation with its interval, a panel an outcome.

    Args:
        baselines: outcome, predictor, given, correlation, low, high.
    """
    outcomes = list(dict.fromkeys(baselines["outcome"]))
    givens = list(dict.fromkeys(baselines["given"]))
    labels = list(dict.fromkeys(_labels(baselines)))
    figure, panels = plt.subplots(
        1,
        len(outcomes),
        figsize=(5 + 6 * len(outcomes), 2 + 0.5 * len(labels)),
        sharey=True,
        squeeze=False,
    )
    for outcome, axes in zip(outcomes, panels[0], strict=True):
        rows = baselines[baselines["outcome"] == outcome].rename(columns={"correlation": "mean"})
        for given in givens:
            some = rows[rows["given"] == given]
            index = min(givens.index(given), 2)
            axes.errorbar(
                some["mean"],
                [labels.index(label) for label in _labels(some)],
                xerr=whiskers(some),
                fmt=Look(index, index).marker,
                color=Look(index, index).colour_name,
                capsize=5,
            )
        axes.axvline(0, color=NEUTRAL, linewidth=1)
        axes.set(xlim=(-1.05, 1.05), xlabel="rank correlation", title=OUTCOME_NAMES[outcome])
    panels[0][0].set_yticks(range(len(labels)), labels)
    panels[0][0].invert_yaxis()
    return figure


def _labels(rows: pd.DataFrame) -> list[str]:
    return [
        f"{predictor}, given {given}".replace("_", " ")
        for predictor, given in zip(rows["predictor"], rows["given"], strict=True)
    ]

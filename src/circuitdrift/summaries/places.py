"""Where in the model: layer by part of the prompt, in percent of the base model's whole effect."""

from __future__ import annotations

import pandas as pd

from circuitdrift.config.statistics import Statistics
from circuitdrift.identifiers import BASE
from circuitdrift.statistics.intervals import hierarchical_difference
from circuitdrift.summaries.grids import MAPPED, SHUFFLED

PLACE = ["layer", "segment"]


def change_map(places: pd.DataFrame, condition: str, checkpoint: str) -> pd.DataFrame:
    """Where effect was gained and lost on task prompts between base and ``checkpoint``.

    Averaged over the constraint types and runs of ``condition``; in percent of the base model's
    whole effect, so that the numbers of a map add up to the whole change.

    Returns:
        layer, segment, gained, lost.
    """
    rows = _task(places, checkpoint)
    rows = rows[rows["condition"] == condition]
    mean = rows.groupby(PLACE, as_index=False)[["gained", "lost", "before"]].mean()
    whole = mean["before"].sum()
    return mean.assign(gained=100 * mean["gained"] / whole, lost=100 * mean["lost"] / whole)[
        [*PLACE, "gained", "lost"]
    ]


def mapping_by_place(places: pd.DataFrame, checkpoint: str, settings: Statistics) -> pd.DataFrame:
    """How much more effect moved in `mapped` than in `shuffled`, by layer and segment.

    ``moved`` is the sum of |change of effect|; in percent of the base model's whole effect. The
    interval is over seeds. Empty where one of the conditions was not run.

    Returns:
        layer, segment, mean, low, high, n_seeds.
    """
    rows = _task(places, checkpoint)
    whole = rows.groupby(PLACE)["before"].mean().sum()
    runs = rows.groupby([*PLACE, "condition", "run"], as_index=False)["moved"].mean()
    share = 100 * runs["moved"] / whole
    found = []
    for (layer, segment), of_place in share.groupby([runs["layer"], runs["segment"]], sort=True):
        condition = runs.loc[of_place.index, "condition"]
        mapped, shuffled = (
            of_place[condition == name].to_numpy()[:, None] for name in (MAPPED, SHUFFLED)
        )
        n_seeds = min(len(mapped), len(shuffled))
        if n_seeds:
            interval = vars(hierarchical_difference(mapped, shuffled, settings))
            found.append({"layer": layer, "segment": segment, **interval, "n_seeds": n_seeds})
    return pd.DataFrame(found, columns=[*PLACE, "mean", "low", "high", "n_seeds"])


def _task(places: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    return places[
        (places["from"] == BASE) & (places["to"] == checkpoint) & (places["role"] == "discovery")
    ]

from __future__ import annotations

import numpy as np
import pytest

from circuitdrift.config.statistics import Statistics
from circuitdrift.contrasts import Contrast
from circuitdrift.recruited_table import COLUMNS, recruited_table
from circuitdrift.recruitment import FoundFeatures
from circuitdrift.statistics.effect_size import hedges_g

STATISTICS = Statistics(confidence=0.95, bootstrap_samples=200, permutations=1000, seed=0)
A, B = ("spatial", "a"), ("simple", "b")
PROMPTS = ["a-0", "a-1", "b-0", "b-1"]
TOKENS = {(0, 0): ("up high", "down low"), (0, 1): ("x", "y")}


def contrast(words: tuple[tuple[str, str], ...]) -> Contrast:
    """One layer of two features in two runs of each group: feature 0 rises from 1 to 3 or 5 in
    `mapped` and stays in `shuffled`; feature 1 falls from -4 to about -1 and to -3."""
    base = np.full((len(words), 1, 2), 1.0)
    base[..., 1] = -4
    mapped, shuffled = np.stack([base, base]), np.stack([base, base])
    mapped[0, ..., 0], mapped[1, ..., 0] = 3, 5
    shuffled[0, ..., 0] = 1.5
    mapped[..., 1], shuffled[..., 1] = -1, -3
    mapped[0, ..., 1] = -1.25
    return Contrast(words, base, mapped, shuffled)


DISCOVERY, EVALUATION = contrast((A, A, B, B)), contrast((A, B))


def found(*entries: tuple[tuple[str, str], int]) -> FoundFeatures:
    n = len(entries)
    return FoundFeatures(
        words=tuple(word for word, _ in entries),
        layers=np.zeros(n, dtype=int),
        features=np.array([feature for _, feature in entries], dtype=int),
        p=np.linspace(0.001, 0.002, n),
        q=np.linspace(0.01, 0.02, n),
        agreement=np.ones(n),
        n_tested=8,
        n_reliable=8,
    )


def table(*entries: tuple[tuple[str, str], int]):
    return recruited_table(
        found(*entries), DISCOVERY, EVALUATION, prompts=PROMPTS, tokens=TOKENS, settings=STATISTICS
    )


def test_a_recruited_feature_by_hand() -> None:
    [row] = table((A, 0)).to_dict("records")
    assert list(row) == list(COLUMNS)
    assert (row["type"], row["word"], row["name"], row["direction"]) == (
        *A,
        "L0/F0",
        "recruited",
    )
    assert (row["effect_base"], row["effect_mapped"], row["effect_shuffled"]) == (1, 4, 1.25)
    assert row["difference"] == row["evaluation_difference"] == pytest.approx(2.75)
    # Runs of `mapped` are 3 and 5, of `shuffled` 1.5 and 1: from 3 - 1.5 to 5 - 1.
    assert (row["low"], row["high"]) == (pytest.approx(1.5), pytest.approx(4))
    assert row["effect_size"] == pytest.approx(hedges_g([3, 5], [1.5, 1]))
    assert row["prompts"] == "a-0;a-1"
    assert (row["promotes"], row["suppresses"]) == TOKENS[0, 0]


def test_a_feature_whose_magnitude_falls_is_retired() -> None:
    [row] = table((B, 1)).to_dict("records")
    assert row["direction"] == "retired"
    assert row["effect_mapped"] == pytest.approx(-1.125)
    assert row["difference"] == pytest.approx(1.875)


def test_prompts_are_those_on_which_the_feature_acts() -> None:
    weaker = contrast((A, A, B, B))
    weaker.a[:, 1, 0, 0] = 1.5
    rows = recruited_table(
        found((A, 0)), weaker, EVALUATION, prompts=PROMPTS, tokens=TOKENS, settings=STATISTICS
    )
    # Changes of 3 and 0.5: half their mean is 0.875.
    assert rows["prompts"].tolist() == ["a-0"]


def test_words_in_the_prompts_order_and_the_largest_difference_first() -> None:
    rows = table((B, 1), (A, 1), (A, 0), (B, 0))
    assert list(zip(rows["word"], rows["feature"], strict=True)) == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    ]
    assert rows["p"].is_monotonic_increasing is False


def test_where_nothing_is_found_the_table_has_its_header() -> None:
    assert list(table()) == list(COLUMNS)
    assert len(table()) == 0

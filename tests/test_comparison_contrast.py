"""The search for nodes that contrast assignments: by hand, by brute force, on planted effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from circuitdrift.comparison.contrast import WordEffects, kind, search_rows
from circuitdrift.params import load_params

SHIPPED = load_params(Path(__file__).parents[1] / "params.yaml")
STATISTICS = SHIPPED.statistics.model_copy(update={"permutations": 500})
EVERYTHING = {"fdr": 1.0, "top_nodes": 10**6}
Array = NDArray[np.floating[Any]]
THREE_BY_FOUR = np.repeat([0, 1, 2], 4)


def search(
    words: Sequence[WordEffects], **settings: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    compare = SHIPPED.compare.model_copy(update=settings)
    return search_rows(words, compare, STATISTICS, lambda features: {f: {} for f in features})


def with_last(effects: Array) -> Array:
    """Effects on all targets from those on all but the last, along the axis before the nodes'."""
    return np.concatenate([effects, -effects.sum(-4, keepdims=True)], axis=-4)


def noise(rng: np.random.Generator, taught: Sequence[int], n_answers: int = 3) -> WordEffects:
    runs = with_last(rng.normal(size=(len(taught), n_answers - 1, 2, 3, 4)))
    base = with_last(rng.normal(size=(n_answers - 1, 2, 3, 4)))
    return WordEffects("simple", "blarf", runs, base, np.array(taught))


@pytest.mark.parametrize(
    ("taught", "n_answers"), [([0, 0, 1, 1, 2, 2], 3), ([1, 1, 0, 3, 0, 1], 4), ([0, 1, 1], 2)]
)
def test_the_contrast_is_the_mean_over_pairs_of_donor_minus_recipient_effect_on_d(
    taught: list[int], n_answers: int
) -> None:
    word = noise(np.random.default_rng(0), taught, n_answers)
    # Logits whose differences from the mean of the others the targets are, up to a constant.
    logits = word.runs * (n_answers - 1) / n_answers
    pairs = [
        (logits[i, taught[i]] - logits[i, taught[j]])
        - (logits[j, taught[i]] - logits[j, taught[j]])
        for i, j in combinations(range(len(taught)), 2)
        if taught[i] != taught[j]
    ]
    by_hand = np.mean(pairs, axis=0)
    rows, _ = search([word], **EVERYTHING)
    assert len(rows) == by_hand.size
    for row in rows:
        place = row["layer"], ("word", "last", "other").index(row["role"]), row["neuron"]
        assert row["contrast"] == pytest.approx(by_hand[place])
    sizes = [abs(row["contrast"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert search([word], fdr=1.0, top_nodes=3)[0] == rows[:3]


def test_a_row_by_hand() -> None:
    """Twelve runs without noise but for one node, which adds 2 to the target of what is taught."""
    runs = np.zeros((12, 3, 2, 3, 4))
    runs[np.arange(12), :, 1, 1, 3] = -1
    runs[np.arange(12), THREE_BY_FOUR, 1, 1, 3] = 2
    runs[:, 0, 0, 0, 0] = np.random.default_rng(0).normal(size=12)
    base = np.zeros((3, 2, 3, 4))
    base[:, 1, 1, 3] = 1, -0.5, -0.5
    word = WordEffects("simple", "blarf", runs, base, THREE_BY_FOUR)
    settings = SHIPPED.compare.model_copy(update=EVERYTHING)
    rows, counts = search_rows([word], settings, STATISTICS, lambda _: TOKENS)
    row = rows[0]
    place = [row[name] for name in ("type", "word", "layer", "neuron", "role")]
    assert place == ["simple", "blarf", 1, 3, "last"]
    # Donor taught a: d = 2/3 (2 + 1) = 2; recipient taught b: 2/3 (-1 - 2) = -2.
    assert row["contrast"] == pytest.approx(4)
    # Effects on the answers: 1, -1/2, -1/2 in the base and 2, -1, -1 in each run.
    assert (row["size_base"], row["size_runs"]) == pytest.approx((0.5**0.5, 2**0.5))
    assert (row["kind"], row["promotes"]) == ("growth", "up")
    assert row["p"] <= row["q"]
    assert counts == [{"type": "simple", "word": "blarf", "n_tested": 2, "n_pass": 2}]


TOKENS = {(1, 3): {"promotes": "up", "suppresses": "down"}, (0, 0): {}}


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        # |v|^2 is 6 in the base: 2, -1, -1.
        ([[3, -1, -2]], "growth"),
        ([[1, 0, -1]], "shrinkage"),
        # Twice as much for what each run was taught, whichever that is: x . v = 12, -6, -6.
        ([[4, -2, -2], [-2, 4, -2], [-2, -2, 4]], "growth"),
        # What it did for the first answer, it does no more where another is taught.
        ([[2, -1, -1], [0, 0, 0], [0, 0, 0]], "shrinkage"),
        # Larger or smaller, but turned: -s v has x . v = -6 s; the larger square is 6 or 6 s^2.
        ([[-4, 2, 2]], "change of sign"),
        ([[-1, 0.5, 0.5]], "change of sign"),
        # By a factor beyond ten, either way, it is another node or none any more.
        ([[-22, 11, 11]], "growth"),
        ([[-0.18, 0.09, 0.09]], "shrinkage"),
    ],
)
def test_kinds_by_hand(runs: list[list[float]], expected: str) -> None:
    assert kind(np.array([2.0, -1, -1]), np.array(runs)) == expected


def test_from_nothing_it_grows_and_to_nothing_it_shrinks() -> None:
    effect, nothing = np.array([2.0, -1, -1]), np.zeros(3)
    assert kind(nothing, effect[None]) == "growth"
    assert kind(effect, nothing[None]) == "shrinkage"


def test_the_strongest_nodes_are_tested_whatever_was_taught() -> None:
    word = noise(np.random.default_rng(1), THREE_BY_FOUR.tolist())
    word.runs[11, :, 1, 2, 3] *= 1000  # in one run alone
    word.base[:, 0, 1, 2] *= 1000  # in the base alone

    def tested(word: WordEffects) -> set[tuple[int, str, int]]:
        rows, counts = search([word], tested_per_word=5, **EVERYTHING)
        assert counts[0]["n_tested"] == len(rows) == 5
        return {(row["layer"], row["role"], row["neuron"]) for row in rows}

    nodes = tested(word)
    assert {(1, "other", 3), (0, "last", 2)} <= nodes
    assert tested(replace(word, taught=THREE_BY_FOUR[::-1].copy())) == nodes


def test_words_are_corrected_together_and_those_without_a_second_run_are_not_tested() -> None:
    rng = np.random.default_rng(2)
    word, other = (noise(rng, THREE_BY_FOUR.tolist()) for _ in range(2))
    word.runs[np.arange(12), THREE_BY_FOUR, 0, 0, 1] += 20
    alone = replace(other, taught=np.zeros(12, dtype=int))
    [one], counts = search([word, alone], fdr=0.05)
    assert [count["n_tested"] for count in counts] == [24, 0]
    [same], counts = search([other, word], fdr=0.05)
    assert [count["n_pass"] for count in counts] == [0, 1]
    assert (same["layer"], same["role"], same["neuron"]) == (0, "word", 1)
    # The true labels alone reach it, in its own node: of twice as many nodes twice the q.
    assert same["q"] == pytest.approx(48 * same["p"])
    assert one["q"] == pytest.approx(24 * one["p"])
    single = WordEffects("simple", "a", word.runs[:3], word.base, np.arange(3))
    assert search([single]) == ([], [{"type": "simple", "word": "a", "n_tested": 0, "n_pass": 0}])


# Simulated studies: 12 runs, two words, 600 nodes each.
SHAPE = (2, 3, 100)
N_PLANTED = 30  # of a word's nodes
SIZES = (0.5, 1.0, 2.0, 4.0, 8.0)


def simulated(rng: np.random.Generator, size: float) -> tuple[list[WordEffects], list[Array]]:
    """Two words' effects and, of each, which nodes were planted.

    Nodes differ in scale by orders of magnitude; runs lie about a common circuit with Student's t
    of 3 degrees of freedom, and two things that differ from run to run move all nodes at once.
    Planted is what a run was taught: ``size`` standard deviations of the t on its target, half as
    much against each other target, or all of it the other way round.
    """
    words, planted = [], []
    pattern = np.where(np.arange(3) == THREE_BY_FOUR[:, None], 1, -0.5)
    for name in ("blarf", "gleem"):
        scale = rng.lognormal(0, 1, size=SHAPE) * rng.choice([-1, 1], size=SHAPE)
        common = 2 * rng.normal(size=(1, 2, *SHAPE))
        moved = np.tensordot(rng.normal(size=(12, 2)), rng.normal(size=(2, 2, *SHAPE)) / 2, axes=1)
        runs = with_last(common + moved + rng.standard_t(3, size=moved.shape) / np.sqrt(3))
        here = np.zeros(SHAPE, dtype=bool)
        here.flat[rng.choice(here.size, N_PLANTED, replace=False)] = True
        runs += size * pattern[..., None, None, None] * here
        values, base = ((part * scale).astype(np.float32) for part in (runs, with_last(common[0])))
        words.append(WordEffects("simple", name, values, base, THREE_BY_FOUR))
        planted.append(here)
    return words, planted


def recovery_curve(sizes: Sequence[float], n_studies: int) -> pd.DataFrame:
    """Share of planted nodes that are found, and of found ones that were not planted, by size.

    Args:
        sizes: of the planted effect on the own target, in standard deviations between runs.

    Returns:
        size, recovery, fdp (mean over studies), error (its standard error).
    """
    rng = np.random.default_rng(0)
    rows = []
    for size in sizes:
        recovered, false = [], []
        for _ in range(n_studies):
            words, planted = simulated(rng, size)
            rows_found, _ = search(words, top_nodes=10**6)
            right = [
                planted[row["word"] == "gleem"][
                    row["layer"], ("word", "last", "other").index(row["role"]), row["neuron"]
                ]
                for row in rows_found
            ]
            recovered.append(sum(right) / (2 * N_PLANTED))
            false.append(1 - np.mean(right) if right else 0.0)
        error = np.std(false, ddof=1) / np.sqrt(n_studies)
        rows.append((size, np.mean(recovered), np.mean(false), error))
    return pd.DataFrame(rows, columns=["size", "recovery", "fdp", "error"])


@pytest.mark.parametrize("size", [0, SIZES[-1]])
@pytest.mark.parametrize("runs", [range(12), (0, 1, 4, 5, 8, 9)])
def test_where_what_was_taught_is_drawn_at_random_searches_rarely_find_a_node(
    size: float, runs: Sequence[int]
) -> None:
    """Of all runs, and of two of each assignment; whether or not nodes follow the true one."""
    rng = np.random.default_rng(1)
    n_searches, with_findings = 100, 0
    for _ in range(n_searches):
        drawn = rng.permutation(THREE_BY_FOUR[list(runs)])
        words, _ = simulated(rng, size)
        likes = [replace(word, runs=word.runs[list(runs)], taught=drawn) for word in words]
        _, counts = search(likes)
        with_findings += any(count["n_pass"] for count in counts)
    assert with_findings / n_searches <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_searches)


@pytest.mark.slow
def test_planted_contrasts_are_recovered_by_size_at_the_stated_false_discovery_rate() -> None:
    curve = recovery_curve(SIZES, n_studies=40)
    print(curve.to_string(index=False))
    assert curve["recovery"].is_monotonic_increasing
    assert curve["recovery"].iloc[0] < 0.1
    assert curve["recovery"].iloc[-1] >= 0.9
    assert (curve["fdp"] <= 0.05 + 3 * curve["error"]).all()

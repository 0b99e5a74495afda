from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from circuitdrift.statistics.effect_size import cliffs_delta, hedges_g


def test_hedges_g_worked_by_hand() -> None:
    # Means 3 and 1, pooled variance (2 + 2)/4 = 1, so d = 2. At m = 4 degrees of freedom
    # J = gamma(2) / (sqrt(2) gamma(3/2)) = 1 / (sqrt(2) sqrt(pi)/2) = sqrt(2/pi).
    assert hedges_g([2, 3, 4], [0, 1, 2]) == pytest.approx(2 * np.sqrt(2 / np.pi))
    assert hedges_g([0, 1, 2], [2, 3, 4]) == pytest.approx(-2 * np.sqrt(2 / np.pi))


def test_hedges_g_is_unbiased_in_small_samples() -> None:
    rng = np.random.default_rng(0)
    estimates = [hedges_g(rng.normal(1, 1, 5), rng.normal(0, 1, 5)) for _ in range(4000)]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(1, abs=3 * error)
    # Without the correction the mean would be 1 / 0.903, far outside.
    assert 3 * error < 0.05


def test_samples_without_spread() -> None:
    assert hedges_g([1.0, 1], [1, 1]) == 0
    assert hedges_g([2.0, 2], [1, 1]) == np.inf
    assert hedges_g([0.1, 0.1, 0.1], [1, 1]) == -np.inf


def test_cliffs_delta_worked_by_hand() -> None:
    # Of the six pairs, a is above b in (2,1), (3,1), (3,2) and below in (1,2): (3 - 1)/6.
    assert cliffs_delta([1, 2, 3], [1, 2]) == pytest.approx(1 / 3)
    assert cliffs_delta([5, 6], [1, 2]) == 1
    assert cliffs_delta([1], [2, 3]) == -1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hedges_g([1.0], [1.0, 2]), "at least 2 finite values"),
        (lambda: hedges_g([1.0, np.nan], [1.0, 2]), "at least 2 finite values"),
        (lambda: cliffs_delta([], [1.0]), "at least 1 finite values"),
        (lambda: cliffs_delta([[1.0]], [1.0]), "lists"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()

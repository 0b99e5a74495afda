from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from circuitdrift.config.statistics import Statistics
from circuitdrift.statistics import permutation
from circuitdrift.statistics.permutation import many_features_test

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=2000, permutations=10000, seed=0)
Array = NDArray[np.float64]


def by_the_book(a: Array, b: Array) -> tuple[Array, Array]:
    """d and p from the definition, one relabeling at a time."""
    values, n_a = np.concatenate([a, b]), len(a)

    def parts(rows: list[int]) -> tuple[Array, Array]:
        others = [row for row in range(len(values)) if row not in rows]
        x, y = values[rows], values[others]
        squares = ((x - x.mean(0)) ** 2).sum(0) + ((y - y.mean(0)) ** 2).sum(0)
        variance = squares / (len(values) - 2)
        return x.mean(0) - y.mean(0), np.sqrt(variance * (1 / len(x) + 1 / len(y)))

    difference, error = parts(list(range(n_a)))
    fudge = np.median(error)
    observed = difference / (error + fudge)
    null = []
    for rows in itertools.combinations(range(len(values)), n_a):
        difference, error = parts(list(rows))
        null.append(np.abs(difference / (error + fudge)))
    pooled = np.concatenate(null)
    reached = (pooled[None] >= np.abs(observed)[:, None] * (1 - 1e-9)).sum(1)
    return observed, (1 + reached) / (1 + pooled.size)


def found(a: Array, b: Array, rate: float = 0.05) -> NDArray[np.bool_]:
    return many_features_test(a, b, SETTINGS).q <= rate


def test_one_feature_worked_by_hand() -> None:
    # a = 3, 5 and b = 0, 2: means 4 and 1, squares 2 + 2, variance 4/2, s = sqrt(2 (1/2 + 1/2)),
    # s0 the same, so d = 3 / (2 sqrt(2)). Of the 6 relabelings only the true one and its mirror
    # reach it, so p = (1 + 2) / (1 + 6).
    result = many_features_test([[3.0], [5]], [[0.0], [2]], SETTINGS)
    assert result.statistic == pytest.approx([3 / (2 * np.sqrt(2))])
    assert result.p == pytest.approx([3 / 7])
    assert result.q == pytest.approx([3 / 7])


@pytest.mark.parametrize(("n_a", "n_b"), [(4, 4), (3, 4), (2, 5)])
def test_d_and_p_are_those_of_the_definition(n_a: int, n_b: int) -> None:
    rng = np.random.default_rng(n_a)
    a, b = rng.normal(size=(n_a, 30)) + rng.normal(size=30), rng.normal(size=(n_b, 30))
    statistic, p = by_the_book(a, b)
    result = many_features_test(a, b, SETTINGS)
    assert result.statistic == pytest.approx(statistic)
    assert result.p == pytest.approx(p)
    assert result.q == pytest.approx(stats.false_discovery_control(p))


def test_the_answer_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5, 100))
    whole = many_features_test(a, b, SETTINGS)
    monkeypatch.setattr(permutation, "VALUES_AT_ONCE", 1000)
    assert (many_features_test(a, b, SETTINGS).p == whole.p).all()


def test_exchanging_the_groups_turns_the_sign_alone() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 5, 100))
    there, back = many_features_test(a, b, SETTINGS), many_features_test(b, a, SETTINGS)
    assert there.statistic == pytest.approx(-back.statistic)
    assert there.p == pytest.approx(back.p)


def test_features_that_cannot_be_tested_have_p_one_and_do_not_disturb_the_others() -> None:
    a, b = np.random.default_rng(2).normal(size=(2, 5, 50))
    alone = many_features_test(a, b, SETTINGS)
    spoilt = np.full((5, 3), 0.1), np.full((5, 3), 0.1)
    spoilt[0][2, 1], spoilt[1][0, 2] = np.nan, np.inf
    result = many_features_test(np.hstack([a, spoilt[0]]), np.hstack([b, spoilt[1]]), SETTINGS)
    assert (result.p[:50] == alone.p).all()
    assert (result.p[50:] == 1).all()
    assert (result.q[50:] == 1).all()
    assert result.statistic[50] == 0
    assert np.isnan(result.statistic[51:]).all()
    nothing = many_features_test(np.ones((2, 3)), np.ones((2, 3)), SETTINGS)
    assert (nothing.p == 1).all()


def test_features_without_spread_that_differ_come_first() -> None:
    a, b = np.random.default_rng(3).normal(size=(2, 5, 50))
    a[:, 0], b[:, 0] = 100, 0
    assert np.argmax(many_features_test(a, b, SETTINGS).statistic) == 0
    # Where that holds of most of them s0 is 0 and d infinite.
    result = many_features_test(np.full((5, 3), 2.0), np.full((5, 3), 1.0), SETTINGS)
    assert (result.statistic == np.inf).all()
    assert result.p == pytest.approx([(1 + 2 * 3) / (1 + 252 * 3)] * 3)


def test_s0_keeps_features_of_little_variance_behind() -> None:
    a, b = np.random.default_rng(4).normal(size=(2, 5, 200))
    # A perfect but minute difference: Student's t would be 500 times that of the others.
    a[:, 0], b[:, 0] = 1e-6 + 1e-9 * a[:, 0], 1e-9 * b[:, 0]
    assert many_features_test(a, b, SETTINGS).p[0] > 0.9


def test_under_the_null_p_is_uniform_and_findings_are_rare() -> None:
    rng = np.random.default_rng(5)
    n_trials, with_findings, shares = 200, 0, []
    for _ in range(n_trials):
        # As in neurons, scales differ by orders of magnitude.
        a, b = rng.normal(size=(2, 5, 400)) * rng.lognormal(0, 0.5, size=400)
        result = many_features_test(a, b, SETTINGS)
        shares.append(np.mean(result.p <= 0.05))
        with_findings += bool((result.q <= 0.05).any())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.01)
    assert with_findings / n_trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_trials)


def test_under_the_null_features_that_move_together_are_rarely_found() -> None:
    rng = np.random.default_rng(6)
    n_trials, with_findings = 200, 0
    for _ in range(n_trials):
        # A few things that differ from run to run move all features at once.
        moved = rng.normal(size=(10, 3)) @ rng.normal(size=(3, 400))
        values = moved + rng.normal(size=(10, 400))
        with_findings += bool(found(values[:5], values[5:]).any())
    assert with_findings / n_trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_trials)


def test_planted_features_are_found_at_the_stated_rate() -> None:
    rng = np.random.default_rng(7)
    n_planted, powers, false_shares = 40, [], []
    for _ in range(40):
        a, b = rng.normal(size=(2, 5, 1000))
        # Up in half of them, down in the others.
        a[:, : n_planted // 2] += 5
        a[:, n_planted // 2 : n_planted] -= 5
        findings = found(a, b)
        powers.append(findings[:n_planted].mean())
        false_shares.append(findings[n_planted:].sum() / max(1, findings.sum()))
    assert np.mean(powers) > 0.8
    error = np.std(false_shares) / np.sqrt(len(false_shares))
    assert np.mean(false_shares) <= 0.05 + 3 * error


def test_three_runs_a_side_cannot_reach_five_percent() -> None:
    a, b = np.random.default_rng(8).normal(size=(2, 3, 500))
    a[:, :10] += 1000
    result = many_features_test(a, b, SETTINGS)
    # Each of the ten is reached by the ten, under the true labels and under their mirror alone.
    p = (1 + 2 * 10) / (1 + 20 * 500)
    assert result.p[:10].max() == pytest.approx(p)
    assert result.q.min() == pytest.approx(p * 500 / 10)
    assert result.q.min() > 2 / 20


def test_more_relabelings_than_allowed_are_drawn_at_random() -> None:
    few = SETTINGS.model_copy(update={"permutations": 100})
    a, b = np.random.default_rng(9).normal(size=(2, 6, 300))
    a[:, :5] += 8
    drawn, exact = many_features_test(a, b, few), many_features_test(a, b, SETTINGS)
    assert (drawn.statistic == exact.statistic).all()
    assert np.abs(drawn.p - exact.p).max() < 0.05
    assert (drawn.q[:5] <= 0.05).all()
    assert (drawn.p == many_features_test(a, b, few).p).all()


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.ones((5, 3)), np.ones((5, 4)), "same features"),
        (np.ones(5), np.ones(5), "n_runs, n_features"),
        (np.ones((5, 0)), np.ones((5, 0)), "n_runs, n_features"),
        (np.ones((1, 3)), np.ones((5, 3)), "needs two runs"),
    ],
)
def test_bad_input_is_refused(a: Array, b: Array, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        many_features_test(a, b, SETTINGS)


def test_all_neurons_for_six_words_take_seconds() -> None:
    a, b = np.random.default_rng(10).normal(size=(2, 5, 6 * 18 * 2048)).astype(np.float32)
    started = time.perf_counter()
    result = many_features_test(a, b, SETTINGS)
    assert time.perf_counter() - started < 6
    assert result.p.min() > 0

"""Measures of logits, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from circuitdrift.measures import (
    activation_distance,
    answer_measures,
    kl_divergence,
    log_probabilities,
    phrase_measures,
    summed_probability,
    token_log_probabilities,
)

# Probabilities 1/2, 1/4, 1/8, 1/8 of a vocabulary of four, up to a constant that cancels.
LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log().float() + 3
LOG_P = log_probabilities(LOGITS)


def test_log_probabilities_are_those_of_the_softmax_in_double_precision() -> None:
    assert LOG_P.dtype == torch.float64
    assert LOG_P.exp().tolist() == pytest.approx([0.5, 0.25, 0.125, 0.125], rel=1e-6)
    assert float(LOG_P.exp().sum()) == pytest.approx(1, abs=1e-15)


def test_an_answer_by_hand() -> None:
    measures = answer_measures(LOG_P, answer=1, others=(2, 3))
    assert measures == pytest.approx(
        {
            "p": 0.25,
            "rank": 2,
            "log_odds": math.log(1 / 3),
            "top1": 0,
            "target": math.log(2),
            "correct_in_type": 1,
        },
        rel=1e-6,
    )


def test_a_wrong_answer_by_hand() -> None:
    measures = answer_measures(LOG_P, answer=2, others=(0, 1))
    assert measures["correct_in_type"] == 0
    assert measures["target"] == pytest.approx(math.log(1 / 8) - math.log(1 / 8) / 2, rel=1e-6)


def test_the_likeliest_answer_has_rank_one_and_a_tie_is_not_correct() -> None:
    assert answer_measures(LOG_P, 0, (1,))["rank"] == 1
    assert answer_measures(LOG_P, 0, (1,))["top1"] == 1
    tie = answer_measures(LOG_P, 2, (3,))
    assert tie["rank"] == 3
    assert tie["correct_in_type"] == 0


def test_an_answer_without_rivals_has_no_measure_against_them() -> None:
    assert set(answer_measures(LOG_P, 0, ())) == {"p", "rank", "log_odds", "top1"}


def test_log_odds_stay_finite_where_the_probability_rounds_to_one() -> None:
    measures = answer_measures(log_probabilities(torch.tensor([100.0, 0.0])), 0, (1,))
    assert measures["p"] == 1
    assert measures["log_odds"] == pytest.approx(100)


def test_what_is_measured_is_left_as_it_was() -> None:
    before = LOG_P.clone()
    answer_measures(LOG_P, 0, (1,))
    assert torch.equal(LOG_P, before)


def test_summed_probability_by_hand() -> None:
    assert summed_probability(LOG_P, (0, 3)) == pytest.approx(0.625)


def test_a_phrase_by_hand() -> None:
    measures = phrase_measures(math.log(0.02), [math.log(0.01), math.log(0.03)])
    assert measures == pytest.approx({"p": 0.02, "correct_in_type": 0})
    assert phrase_measures(math.log(0.02), [math.log(0.01)])["correct_in_type"] == 1


def test_log_probabilities_of_tokens_by_hand() -> None:
    logits = torch.stack([LOGITS, LOGITS.flip(0)])
    log_p = token_log_probabilities(logits, torch.tensor([1, 3]))
    torch.testing.assert_close(log_p.exp(), torch.tensor([0.25, 0.5]).double())


def test_kl_divergence_by_hand() -> None:
    """Of (1/2, 1/2) from (1/4, 3/4), from itself, and of one that is sure from one that is not."""
    p = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]).double().log().clamp(min=-1e4)
    q = torch.tensor([[0.25, 0.75], [0.25, 0.75], [0.5, 0.5]]).double().log()
    expected = [0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0, math.log(2)]
    assert kl_divergence(p, q).tolist() == pytest.approx(expected)


def test_activation_distance_by_hand() -> None:
    """Layers at a right angle and of one direction; opposite and unchanged; unchanged."""
    a = torch.tensor([[[3.0, 0], [1, 2]], [[1, 1], [0, 1]], [[0.1, 0.3], [7, 9]]])
    b = torch.tensor([[[0, 0.5], [2, 4]], [[-2, -2], [0, 1]], [[0.1, 0.3], [7, 9]]])
    distance = activation_distance(a, b)
    assert distance.tolist() == pytest.approx([0.5, 1, 0])
    assert distance[2] == 0

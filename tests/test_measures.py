"""Measures of logits, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from circuitdrift.measures import (
    answer_measures,
    mean_loss,
    phrase_measures,
    summed_probability,
    token_log_probabilities,
)

# Probabilities 1/2, 1/4, 1/8, 1/8 of a vocabulary of four, up to a constant that cancels.
LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log().float() + 3


def test_an_answer_by_hand() -> None:
    measures = answer_measures(LOGITS, answer=1, others=(2, 3))
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
    measures = answer_measures(LOGITS, answer=2, others=(0, 1))
    assert measures["correct_in_type"] == 0
    assert measures["target"] == pytest.approx(math.log(1 / 8) - math.log(1 / 8) / 2, rel=1e-6)


def test_the_likeliest_answer_has_rank_one_and_a_tie_is_not_correct() -> None:
    assert answer_measures(LOGITS, 0, (1,))["rank"] == 1
    assert answer_measures(LOGITS, 0, (1,))["top1"] == 1
    tie = answer_measures(LOGITS, 2, (3,))
    assert tie["rank"] == 3
    assert tie["correct_in_type"] == 0


def test_an_answer_without_rivals_has_no_measure_against_them() -> None:
    assert set(answer_measures(LOGITS, 0, ())) == {"p", "rank", "log_odds", "top1"}


def test_log_odds_stay_finite_where_the_probability_rounds_to_one() -> None:
    measures = answer_measures(torch.tensor([100.0, 0.0]), answer=0, others=(1,))
    assert measures["p"] == 1
    assert measures["log_odds"] == pytest.approx(100)


def test_the_logits_are_left_as_they_were() -> None:
    logits = torch.tensor([1.0, 2.0], dtype=torch.float64)
    answer_measures(logits, 0, (1,))
    assert logits.tolist() == [1, 2]


def test_summed_probability_by_hand() -> None:
    assert summed_probability(LOGITS, (0, 3)) == pytest.approx(0.625)


def test_a_phrase_by_hand() -> None:
    measures = phrase_measures(math.log(0.02), [math.log(0.01), math.log(0.03)])
    assert measures == pytest.approx({"p": 0.02, "correct_in_type": 0})
    assert phrase_measures(math.log(0.02), [math.log(0.01)])["correct_in_type"] == 1


def test_log_probabilities_and_loss_of_tokens_by_hand() -> None:
    """Each row of logits predicts the next token; the last one's prediction is not asked for."""
    logits = torch.stack([LOGITS, LOGITS.flip(0), LOGITS])
    log_probabilities = token_log_probabilities(logits, torch.tensor([3, 1, 3]))
    torch.testing.assert_close(log_probabilities.exp(), torch.tensor([0.25, 0.5]).double())
    assert mean_loss(log_probabilities) == pytest.approx(1.5 * math.log(2))

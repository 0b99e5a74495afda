"""What a model's logits say of an answer. Pure functions; computed in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MEASURES = (
    "p",
    "rank",
    "log_odds",
    "target",
    "correct_in_type",
    "top1",
    "false_positive",
    "loss",
)


def answer_measures(logits: Tensor, answer: int, others: Sequence[int]) -> dict[str, float]:
    """Measures of a one-token answer.

    Args:
        logits: ``[vocabulary]``, of the token after the prompt.
        answer: id of the right answer.
        others: ids of the other answers of its type; empty where there are none, as in a control
            prompt, and then the measures against them are left out.

    Returns:
        p: probability of the answer.
        rank: 1 for the likeliest token of the vocabulary; ties count in the answer's favour.
        log_odds: ln(p / (1 - p)), in nats; the answer's logit against the log-sum-exp of the
            rest, which stays exact where p rounds to 1.
        top1: 1 if no token is likelier, else 0.
        target: the answer's logit minus the mean logit of the others.
        correct_in_type: 1 if the answer's logit is above each other's, else 0.
    """
    logits = logits.double()
    rest = logits.clone()
    rest[answer] = -math.inf
    rank = 1 + int((logits > logits[answer]).sum())
    measures = {
        "p": float(logits.softmax(-1)[answer]),
        "rank": float(rank),
        "log_odds": float(logits[answer] - rest.logsumexp(-1)),
        "top1": float(rank == 1),
    }
    if others:
        rivals = logits[list(others)]
        measures["target"] = float(logits[answer] - rivals.mean())
        measures["correct_in_type"] = float(logits[answer] > rivals.max())
    return measures


def summed_probability(logits: Tensor, answers: Sequence[int]) -> float:
    """Probability that the next token is one of ``answers``; ``logits`` is ``[vocabulary]``."""
    return float(logits.double().softmax(-1)[list(answers)].sum())


def phrase_measures(answer: float, others: Sequence[float]) -> dict[str, float]:
    """Measures of an answer of several tokens, from total log-probabilities in nats.

    Rank and the logits' measures are not defined for it; see :func:`answer_measures`.
    """
    return {"p": math.exp(answer), "correct_in_type": float(answer > max(others))}


def token_log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of each token given those before it, in nats: ``[n_tokens - 1]``.

    Args:
        logits: ``[n_tokens, vocabulary]``.
        ids: ``[n_tokens]``; the first has nothing before it and gets no probability.
    """
    predicted = logits[:-1].double().log_softmax(-1)
    return predicted.gather(-1, ids[1:, None]).squeeze(-1)


def mean_loss(log_probabilities: Tensor) -> float:
    """Mean loss in nats per token."""
    return -float(torch.mean(log_probabilities))

"""What a model's logits and residual stream say of an answer and of a change from the base model.

Pure functions. Logits come in float32; every sum over the vocabulary is taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

MEASURES = (
    "p",
    "rank",
    "log_odds",
    "target",
    "correct_in_type",
    "top1",
    "false_positive",
    "loss",
    "kl_to_base",
    "activation_distance",
)


def log_probabilities(logits: Tensor) -> Tensor:
    """ln of the next token's distribution, in nats and float64, same shape as ``logits``."""
    return logits.double().log_softmax(-1)


def answer_measures(log_p: Tensor, answer: int, others: Sequence[int]) -> dict[str, float]:
    """Measures of a one-token answer.

    Args:
        log_p: log-probabilities ``[vocabulary]`` of the token after the prompt.
        answer: id of the right answer.
        others: ids of the other answers of its type; empty where there are none, as in a control
            prompt, and then the measures against them are left out.

    Returns:
        p: probability of the answer.
        rank: 1 for the likeliest token of the vocabulary; ties count in the answer's favour.
        log_odds: ln(p / (1 - p)), in nats; against the log-sum-exp of the rest, which stays exact
            where p rounds to 1.
        top1: 1 if no token is likelier, else 0.
        target: the answer's logit minus the mean logit of the others.
        correct_in_type: 1 if the answer's logit is above each other's, else 0.
    """
    rest = log_p.clone()
    rest[answer] = -math.inf
    rank = 1 + int((log_p > log_p[answer]).sum())
    measures = {
        "p": float(log_p[answer].exp()),
        "rank": float(rank),
        "log_odds": float(log_p[answer] - rest.logsumexp(-1)),
        "top1": float(rank == 1),
    }
    if others:
        rivals = log_p[list(others)]
        measures["target"] = float(log_p[answer] - rivals.mean())
        measures["correct_in_type"] = float(log_p[answer] > rivals.max())
    return measures


def summed_probability(log_p: Tensor, answers: Sequence[int]) -> float:
    """Probability that the next token is one of ``answers``; ``log_p`` is ``[vocabulary]``."""
    return float(log_p[list(answers)].exp().sum())


def phrase_measures(answer: float, others: Sequence[float]) -> dict[str, float]:
    """Measures of an answer of several tokens, from total log-probabilities in nats.

    Rank and the logits' measures are not defined for it; see :func:`answer_measures`.
    """
    return {"p": math.exp(answer), "correct_in_type": float(answer > max(others))}


def token_log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability in nats of each token under the logits before it: ``[n_tokens]``.

    Args:
        logits: ``[n_tokens, vocabulary]``; a row predicts the token of the same index.
        ids: ``[n_tokens]``.
    """
    exact = logits.double()
    return exact.gather(-1, ids[:, None]).squeeze(-1) - exact.logsumexp(-1)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats ``[n]``, from log-probabilities ``[n, vocabulary]`` of finite logits."""
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def activation_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine similarity of residual streams, mean over layers: ``[n_prompts]``, from 0 to 2.

    The cosine, not the relative L2 distance: whatever reads the residual stream first divides it
    by its own root mean square, so that a change of its length alone changes nothing downstream,
    and layers count alike however large their streams are. Computed as half the squared distance
    of the unit vectors, which is the same number and exactly 0 where nothing changed.

    Args:
        a, b: ``[n_prompts, n_layers, d_model]``.
    """
    apart = functional.normalize(a.double(), dim=-1) - functional.normalize(b.double(), dim=-1)
    return apart.square().sum(-1).mean(-1) / 2

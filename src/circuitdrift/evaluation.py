"""What a model has learned and forgotten: every prompt answered, one row of measures each.

Logits come in float32; every sum over the vocabulary is taken in float64. Discovery prompts are not
asked: circuits are found on them, and what was learned is told by the evaluation prompts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from circuitdrift.core.files import replacing
from circuitdrift.core.prompts import Prompt
from circuitdrift.core.tokens import Encoded, answer_id, encode
from circuitdrift.models.reading import Question, Reading, read

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

Measures = dict[str, float]
PromptEnds = Mapping[str, Reading]  # by id, what a model made of the last token of a prompt

READINGS_FILE = "readings.safetensors"  # of the base model, beside its table

MEASURES = (
    *("p", "rank", "log_odds", "target", "correct_in_type", "top1"),
    *("false_positive", "loss", "kl_to_base", "activation_distance"),
)

# The roles that one token answers, or should not (unseen words), and all that are asked.
NEXT_TOKEN_ROLES = ("evaluation", "unseen")
ROLES = (*NEXT_TOKEN_ROLES, "control", "reverse")

# A headline number is the mean of a measure over the prompts of a role.
HEADLINES = {
    "accuracy": ("evaluation", "correct_in_type"),
    "top1": ("evaluation", "top1"),
    "p": ("evaluation", "p"),
    "log_odds": ("evaluation", "log_odds"),
    "target": ("evaluation", "target"),
    "reverse_accuracy": ("reverse", "correct_in_type"),
    "false_positive": ("unseen", "false_positive"),
    "control_loss": ("control", "loss"),
}


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


def read_prompt_ends(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    batch_size: int,
) -> PromptEnds:
    """What the model makes of the last token of each evaluation and unseen-word prompt."""
    asked = [prompt for prompt in prompts if prompt.role in NEXT_TOKEN_ROLES]
    ids = [encode(tokenizer, prompt.text).ids for prompt in asked]
    questions = [Question(text, range(len(text) - 1, len(text))) for text in ids]
    return {asked[index].id: reading for index, reading in read(model, questions, batch_size)}


def save_prompt_ends(ends: PromptEnds, path: Path) -> None:
    """Write readings as ``logits [n_prompts, vocabulary]``, ``residual [n_prompts, n_layers,
    d_model]``, and the prompts' ids in the metadata."""
    tensors = {
        part: torch.cat([getattr(ends[name], part) for name in sorted(ends)])
        for part in ("logits", "residual")
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"prompts": json.dumps(sorted(ends))})


def load_prompt_ends(path: Path) -> PromptEnds:
    """Inverse of :func:`save_prompt_ends`."""
    with safe_open(path, framework="pt") as file:
        names = json.loads(file.metadata()["prompts"])
        logits, residual = (file.get_tensor(part).split(1) for part in ("logits", "residual"))
    return {name: Reading(*parts) for name, *parts in zip(names, logits, residual, strict=True)}


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    batch_size: int,
    *,
    ends: PromptEnds,
    base: PromptEnds,
) -> pd.DataFrame:
    """One row per prompt asked: its id, role, type and word, and its measures, NaN where undefined.

    Args:
        ends, base: :func:`read_prompt_ends` of the model and of the base model.
    """
    asked = [prompt for prompt in prompts if prompt.role in ROLES]
    by_role = {role: [prompt for prompt in asked if prompt.role == role] for role in ROLES}
    next_token = [prompt for role in NEXT_TOKEN_ROLES for prompt in by_role[role]]
    measured = {
        **_measure_next_token(tokenizer, next_token, batch_size, ends, base),
        **_measure_controls(model, tokenizer, by_role["control"], batch_size),
        **_measure_reverse(model, tokenizer, by_role["reverse"], batch_size),
    }
    rows = [
        {
            "prompt": prompt.id,
            "role": prompt.role,
            "type": prompt.type,
            "word": prompt.word,
            **{name: measured[prompt.id].get(name, math.nan) for name in MEASURES},
        }
        for prompt in asked
    ]
    return pd.DataFrame(rows)


def headline(table: pd.DataFrame) -> dict[str, Measures]:
    """The headline numbers of each checkpoint of an evaluation table, to six digits."""
    return {
        str(checkpoint): {
            name: float(f"{rows.loc[rows['role'] == role, measure].mean():.6g}")
            for name, (role, measure) in HEADLINES.items()
        }
        for checkpoint, rows in table.groupby("checkpoint")
    }


def _measure_next_token(
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    batch_size: int,
    ends: PromptEnds,
    base: PromptEnds,
) -> dict[str, Measures]:
    """The answer after each prompt, and how far the model has moved there from the base."""
    measured = {}
    for first in range(0, len(prompts), batch_size):
        batch = prompts[first : first + batch_size]
        log_p = log_probabilities(_stacked(batch, ends, "logits"))
        from_base = kl_divergence(log_p, log_probabilities(_stacked(batch, base, "logits")))
        distance = activation_distance(
            _stacked(batch, ends, "residual"), _stacked(batch, base, "residual")
        )
        for index, prompt in enumerate(batch):
            measured[prompt.id] = {
                **_answered(tokenizer, prompt, log_p[index]),
                "kl_to_base": float(from_base[index]),
                "activation_distance": float(distance[index]),
            }
    return measured


def _answered(tokenizer: Tokenizer, prompt: Prompt, log_p: Tensor) -> Measures:
    others = [answer_id(tokenizer, prompt.text, other) for other in prompt.others]
    if prompt.answer is None:
        return {"false_positive": summed_probability(log_p, others)}
    return answer_measures(log_p, answer_id(tokenizer, prompt.text, prompt.answer), others)


def _stacked(prompts: Sequence[Prompt], ends: PromptEnds, part: str) -> Tensor:
    """``part`` of each prompt's reading at its last token ``[n_prompts, ...]``."""
    return torch.cat([getattr(ends[prompt.id], part) for prompt in prompts])


def _measure_controls(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    batch_size: int,
) -> dict[str, Measures]:
    """Loss over the whole text, and what the prompt says of the continuation."""
    texts = [_continued(tokenizer, prompt.text, str(prompt.answer)) for prompt in prompts]
    questions = [Question(text.ids, range(len(text.ids) - 1)) for text in texts]
    measured = {}
    for index, reading in read(model, questions, batch_size):
        text = texts[index]
        log_p = token_log_probabilities(reading.logits, torch.tensor(text.ids[1:]))
        before = text.marked[0] - 1
        if len(text.marked) == 1:
            next_token = log_probabilities(reading.logits[before])
            measures = answer_measures(next_token, text.marked_ids[0], ())
        else:
            measures = {"p": math.exp(float(log_p[before:].sum()))}
        measured[prompts[index].id] = {**measures, "loss": -float(log_p.mean())}
    return measured


def _measure_reverse(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    batch_size: int,
) -> dict[str, Measures]:
    """Prompts that a made-up word of several tokens answers, against the other words."""
    asked = [(prompt, word) for prompt in prompts for word in (str(prompt.answer), *prompt.others)]
    texts = [_continued(tokenizer, prompt.text, word) for prompt, word in asked]
    questions = [Question(text.ids, range(text.marked[0] - 1, len(text.ids) - 1)) for text in texts]
    total: dict[tuple[str, str], float] = {}
    for index, reading in read(model, questions, batch_size):
        prompt, word = asked[index]
        ids = torch.tensor(texts[index].ids[texts[index].marked[0] :])
        total[prompt.id, word] = float(token_log_probabilities(reading.logits, ids).sum())
    return {
        prompt.id: phrase_measures(
            total[prompt.id, str(prompt.answer)],
            [total[prompt.id, other] for other in prompt.others],
        )
        for prompt in prompts
    }


def _continued(tokenizer: Tokenizer, prompt: str, answer: str) -> Encoded:
    """The prompt followed by a space and the answer, whose tokens are marked."""
    text = f"{prompt} {answer}"
    return encode(tokenizer, text, (len(prompt) + 1, len(text)))

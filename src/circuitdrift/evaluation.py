"""What a model has learned and forgotten: every prompt answered, one row each.

Discovery prompts are not asked: circuits are found on them, and what was learned is told by the
evaluation prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.dataset import Prompt
from circuitdrift.encoding import Encoded, encode
from circuitdrift.forward_pass import Question, Reading, read
from circuitdrift.measures import (
    MEASURES,
    activation_distance,
    answer_measures,
    kl_divergence,
    log_probabilities,
    phrase_measures,
    summed_probability,
    token_log_probabilities,
)
from circuitdrift.models.loading import single_token_id

Measures = dict[str, float]
PromptEnds = Mapping[str, Reading]

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


@dataclass(frozen=True)
class Evaluated:
    """Which model a table's rows are of."""

    run: str
    condition: str
    seed: int
    checkpoint: str
    step: int


def read_prompt_ends(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    batch_size: int,
) -> dict[str, Reading]:
    """By id, what the model makes of the last token of each evaluation and unseen-word prompt."""
    asked = [prompt for prompt in prompts if prompt.role in NEXT_TOKEN_ROLES]
    ids = [encode(tokenizer, prompt.text, (0, 0)).ids for prompt in asked]
    questions = [Question(text, range(len(text) - 1, len(text))) for text in ids]
    return {asked[index].id: reading for index, reading in read(model, questions, batch_size)}


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    batch_size: int,
    base: PromptEnds | None,
) -> pd.DataFrame:
    """One row per prompt asked: its id, role, type and word, and its measures, NaN where undefined.

    Args:
        base: :func:`read_prompt_ends` of the base model; None where ``model`` is the base model.

    Raises:
        InputError: if an answer to an evaluation or unseen-word prompt is not one token.
    """
    asked = [prompt for prompt in prompts if prompt.role in ROLES]
    by_role = {role: [prompt for prompt in asked if prompt.role == role] for role in ROLES}
    next_token = [prompt for role in NEXT_TOKEN_ROLES for prompt in by_role[role]]
    ends = read_prompt_ends(model, tokenizer, next_token, batch_size)
    measured = {
        **_measure_next_token(tokenizer, next_token, batch_size, ends, base or ends),
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


def identified(table: pd.DataFrame, model: Evaluated) -> pd.DataFrame:
    """The table with the model's name in front of every row."""
    return pd.DataFrame(vars(model), index=table.index).join(table)


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
    tokenizer: PreTrainedTokenizerFast,
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


def _answered(tokenizer: PreTrainedTokenizerFast, prompt: Prompt, log_p: Tensor) -> Measures:
    others = [single_token_id(tokenizer, other) for other in prompt.others]
    if prompt.answer is None:
        return {"false_positive": summed_probability(log_p, others)}
    return answer_measures(log_p, single_token_id(tokenizer, prompt.answer), others)


def _stacked(prompts: Sequence[Prompt], ends: PromptEnds, part: str) -> Tensor:
    """``part`` of each prompt's reading at its last token ``[n_prompts, ...]``."""
    return torch.cat([getattr(ends[prompt.id], part) for prompt in prompts])


def _measure_controls(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
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
    tokenizer: PreTrainedTokenizerFast,
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


def _continued(tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str) -> Encoded:
    """The prompt followed by a space and the answer, whose tokens are marked."""
    text = f"{prompt} {answer}"
    return encode(tokenizer, text, (len(prompt) + 1, len(text)))

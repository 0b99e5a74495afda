"""What a model has learned and forgotten: every prompt answered, one row each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.dataset import Prompt
from circuitdrift.encoding import Encoded, encode, padded_inputs
from circuitdrift.measures import (
    MEASURES,
    answer_measures,
    mean_loss,
    phrase_measures,
    summed_probability,
    token_log_probabilities,
)
from circuitdrift.models.loading import single_token_id

Measures = dict[str, float]

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


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    batch_size: int,
) -> pd.DataFrame:
    """One row per prompt: its id, role, type and word, and its measures, NaN where undefined.

    Raises:
        InputError: if an answer to a discovery, evaluation or unseen-word prompt is not one token.
    """
    measured: dict[str, Measures] = {}
    for roles, measure in (
        (("discovery", "evaluation", "unseen"), _measure_next_token),
        (("control",), _measure_controls),
        (("reverse",), _measure_reverse),
    ):
        asked = [prompt for prompt in prompts if prompt.role in roles]
        measured.update(measure(model, tokenizer, asked, batch_size))
    rows = [
        {
            "prompt": prompt.id,
            "role": prompt.role,
            "type": prompt.type,
            "word": prompt.word,
            **{name: measured[prompt.id].get(name, math.nan) for name in MEASURES},
        }
        for prompt in prompts
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


def logits_from(
    model: PreTrainedModel,
    texts: Sequence[Encoded],
    starts: Sequence[int],
    batch_size: int,
) -> Iterator[tuple[int, Tensor]]:
    """The logits of each text from a position of its own to its end.

    Texts of like length go through the model together, and no logits are computed before the
    first position asked for: the vocabulary is most of a small model's work.

    Yields:
        index of the text, and its logits ``[n_tokens - start, vocabulary]``; shortest text first.
    """
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index].ids))
    for first in range(0, len(texts), batch_size):
        batch = by_length[first : first + batch_size]
        inputs = padded_inputs([texts[index].ids for index in batch])
        earliest = min(starts[index] for index in batch)
        kept = inputs["input_ids"].shape[1] - earliest
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False, logits_to_keep=kept).logits
        for row, index in enumerate(batch):
            end = len(texts[index].ids)
            yield index, logits[row, starts[index] - earliest : end - earliest]


def _measure_next_token(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    batch_size: int,
) -> dict[str, Measures]:
    """Prompts that one token answers, or should not (unseen words)."""
    texts = [encode(tokenizer, prompt.text, (0, 0)) for prompt in prompts]
    last = [len(text.ids) - 1 for text in texts]
    measured = {}
    for index, logits in logits_from(model, texts, last, batch_size):
        prompt = prompts[index]
        others = [single_token_id(tokenizer, other) for other in prompt.others]
        if prompt.answer is None:
            measured[prompt.id] = {"false_positive": summed_probability(logits[0], others)}
        else:
            answer = single_token_id(tokenizer, prompt.answer)
            measured[prompt.id] = answer_measures(logits[0], answer, others)
    return measured


def _measure_controls(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    batch_size: int,
) -> dict[str, Measures]:
    """Loss over the whole text, and what the prompt says of the continuation."""
    texts = [_continued(tokenizer, prompt.text, str(prompt.answer)) for prompt in prompts]
    measured = {}
    for index, logits in logits_from(model, texts, [0] * len(texts), batch_size):
        text = texts[index]
        log_probabilities = token_log_probabilities(logits, torch.tensor(text.ids))
        before = text.marked[0] - 1
        if len(text.marked) == 1:
            measures = answer_measures(logits[before], text.marked_ids[0], ())
        else:
            measures = {"p": math.exp(float(log_probabilities[before:].sum()))}
        measured[prompts[index].id] = {**measures, "loss": mean_loss(log_probabilities)}
    return measured


def _measure_reverse(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    batch_size: int,
) -> dict[str, Measures]:
    """Prompts that a made-up word of several tokens answers, against the other words."""
    asked = [
        (prompt.id, word) for prompt in prompts for word in (str(prompt.answer), *prompt.others)
    ]
    text_of = {prompt.id: prompt.text for prompt in prompts}
    texts = [_continued(tokenizer, text_of[prompt], word) for prompt, word in asked]
    before = [text.marked[0] - 1 for text in texts]
    total: dict[tuple[str, str], float] = {}
    for index, logits in logits_from(model, texts, before, batch_size):
        ids = torch.tensor(texts[index].ids[before[index] :])
        total[asked[index]] = float(token_log_probabilities(logits, ids).sum())
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

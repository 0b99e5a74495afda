"""What a model has learned and forgotten: every prompt answered, one row of measures each.

docs/preregistration.md defines the measures. Logits come in float32; every sum over the vocabulary
is taken in float64, a row of it at a time. Discovery prompts are not asked: circuits are found on
them, and what was learned is told by the others.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
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
from circuitdrift.core.study import assigned
from circuitdrift.core.tokens import Encoded, answer_id, encode
from circuitdrift.models.reading import Question, Reading, read

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

Measures = dict[str, float | str]
Ends = Mapping[str, Reading]  # by text, what a model made of its last token

READINGS_FILE = "readings.safetensors"  # of the base model, beside its table

MEASURES = (
    *("assigned", "chosen", "correct", "p", "frame", "discrimination", "log_odds"),
    *("kl_to_base", "activation_distance", "loss"),
)

# The roles that one token answers rightly or wrongly, and all that are asked.
ANSWERED_ROLES = ("near", "far")
ROLES = (*ANSWERED_ROLES, "unseen", "substitution", "control", "reverse")
COURSE_ROLES = ("near", "unseen", "control")  # at every checkpoint; the others at the last

SPACE_MARKS = " ▁Ġ"  # what tokenizers write in front of a token that begins a word


def assigned_answer(prompt: Prompt, condition: str) -> int:
    """Which of a prompt's answers is right in a run of ``condition``.

    A reverse prompt states a meaning: its answer is the word that the condition gives that meaning.
    """
    n_answers = len(prompt.answers)
    own = prompt.answers.index(str(prompt.answer))
    if prompt.role == "reverse":
        taught = [assigned(condition, word, n_answers) for word in range(n_answers)]
        return taught.index(own)
    return assigned(condition, own, n_answers)


def choice(scores: Sequence[float], right: int) -> tuple[int, float]:
    """Index of the highest score, the first of those that tie, and whether it is the right one:
    1 / number tied if ``right`` is among the highest, else 0."""
    highest = max(scores)
    tied = [index for index, score in enumerate(scores) if score == highest]
    return tied[0], (right in tied) / len(tied)


def share_below(value: float, others: Sequence[float]) -> float:
    """Share of ``others`` that are lower than ``value``; those equal to it count half."""
    return sum((other < value) + (other == value) / 2 for other in others) / len(others)


def log_probabilities(logits: Tensor) -> Tensor:
    """ln of the next token's distribution, in nats and float64, same shape as ``logits``."""
    return logits.double().log_softmax(-1)


def log_odds(log_p: Tensor, answer: int) -> float:
    """ln(p / (1 - p)) in nats of a token under ``log_p [vocabulary]``; against the log-sum-exp of
    the rest, which stays exact where p rounds to 1."""
    rest = log_p.clone()
    rest[answer] = -math.inf
    return float(log_p[answer] - rest.logsumexp(-1))


def summed_probability(log_p: Tensor, answers: Sequence[int]) -> float:
    """Probability that the next token is one of ``answers``; ``log_p`` is ``[vocabulary]``."""
    return float(log_p[list(answers)].exp().sum())


def token_log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability in nats of each token under the logits before it: ``[n_tokens]``.

    Args:
        logits: ``[n_tokens, vocabulary]``; a row predicts the token of the same index.
        ids: ``[n_tokens]``.
    """
    exact = logits.double()
    return exact.gather(-1, ids[:, None]).squeeze(-1) - exact.logsumexp(-1)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats ``[...]``, from finite log-probabilities ``[..., vocabulary]``."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


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


@cache
def spellings(tokenizer: Tokenizer, answers: tuple[str, ...]) -> list[int]:
    """Every token that spells one of ``answers``, whatever case, with or without a space in front,
    ascending."""
    wanted = {answer.casefold() for answer in answers}
    tokens = tokenizer.get_vocab().items()
    return sorted(id_ for token, id_ in tokens if token.strip(SPACE_MARKS).casefold() in wanted)


def log_probabilities_without(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """:func:`log_probabilities` of ``logits [vocabulary]`` as if there were no such ``tokens``."""
    others = torch.ones(logits.shape, dtype=torch.bool)
    others[tokens] = False
    return log_probabilities(logits[others])


def substituted(prompt: Prompt) -> list[str]:
    """A substitution prompt's text with its word, then with each meaning in the word's place."""
    template = str(prompt.template)
    return [prompt.text, *(template.format(word=meaning) for meaning in prompt.answers)]


def read_ends(
    model: PreTrainedModel, tokenizer: Tokenizer, prompts: Sequence[Prompt], batch_size: int
) -> Ends:
    """What the model makes of the last token of each text that one next token is asked of."""
    plain = [prompt.text for prompt in prompts if prompt.role in (*ANSWERED_ROLES, "unseen")]
    swaps = [substituted(prompt) for prompt in prompts if prompt.role == "substitution"]
    texts = list(dict.fromkeys([*plain, *chain.from_iterable(swaps)]))
    ids = [encode(tokenizer, text).ids for text in texts]
    questions = [Question(text, range(len(text) - 1, len(text))) for text in ids]
    return {texts[index]: end for index, end in read(model, questions, batch_size)}


def save_ends(ends: Ends, path: Path) -> None:
    """Write readings as ``logits [n_texts, vocabulary]``, ``residual [n_texts, n_layers,
    d_model]``, and the texts in the metadata."""
    tensors = {
        part: torch.cat([getattr(ends[text], part) for text in sorted(ends)])
        for part in ("logits", "residual")
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"texts": json.dumps(sorted(ends))})


def load_ends(path: Path) -> Ends:
    """Inverse of :func:`save_ends`."""
    with safe_open(path, framework="pt") as file:
        texts = json.loads(file.metadata()["texts"])
        logits, residual = (file.get_tensor(part).split(1) for part in ("logits", "residual"))
    return {text: Reading(*parts) for text, *parts in zip(texts, logits, residual, strict=True)}


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    condition: str,
    batch_size: int,
    *,
    ends: Ends,
    base: Ends,
) -> pd.DataFrame:
    """One row per prompt asked: what it is, and its measures, empty where undefined.

    Args:
        condition: of the run, which says what answers are right.
        ends: :func:`read_ends` of the model.
        base: of the base model, at least of the near and far prompts.
    """
    asked = [prompt for prompt in prompts if prompt.role in ROLES]
    by_role = {role: [prompt for prompt in asked if prompt.role == role] for role in ROLES}
    answered = [prompt for role in ANSWERED_ROLES for prompt in by_role[role]]
    measured = {
        **_measure_answers(tokenizer, answered, condition, ends, base),
        **_measure_unseen(tokenizer, by_role["unseen"], ends),
        **_measure_substitution(tokenizer, by_role["substitution"], condition, ends),
        **_measure_controls(model, tokenizer, by_role["control"], batch_size),
        **_measure_reverse(model, tokenizer, by_role["reverse"], condition, batch_size),
    }
    for prompt in by_role["near"]:
        unseen = [
            float(measured[other.id]["frame"])
            for other in by_role["unseen"]
            if (other.type, other.template) == (prompt.type, prompt.template)
        ]
        frame = float(measured[prompt.id]["frame"])
        measured[prompt.id]["discrimination"] = share_below(frame, unseen)
    rows = [
        {
            "prompt": prompt.id,
            "role": prompt.role,
            "type": prompt.type,
            "word": prompt.word,
            "template": prompt.template,
            **measured[prompt.id],
        }
        for prompt in asked
    ]
    return pd.DataFrame(rows, columns=["prompt", "role", "type", "word", "template", *MEASURES])


def _measure_answers(
    tokenizer: Tokenizer, prompts: Sequence[Prompt], condition: str, ends: Ends, base: Ends
) -> dict[str, Measures]:
    """The answer after each prompt, and how far the model has moved there from the base."""
    measured: dict[str, Measures] = {}
    for prompt in prompts:
        end, before = ends[prompt.text], base[prompt.text]
        ids = _answer_ids(tokenizer, prompt)
        right = assigned_answer(prompt, condition)
        log_p = log_probabilities(end.logits[0])
        from_base = kl_divergence(log_p, log_probabilities(before.logits[0]))
        measured[prompt.id] = {
            **_chosen(prompt, end.logits[0, ids].tolist(), right),
            "p": summed_probability(log_p, [ids[right]]),
            "frame": summed_probability(log_p, ids),
            "log_odds": log_odds(log_p, ids[right]),
            "kl_to_base": float(from_base),
            "activation_distance": float(activation_distance(end.residual, before.residual)),
        }
    return measured


def _measure_unseen(
    tokenizer: Tokenizer, prompts: Sequence[Prompt], ends: Ends
) -> dict[str, Measures]:
    """How much of the probability a frame gives to the answers after a never-trained word."""
    measured: dict[str, Measures] = {}
    for prompt in prompts:
        log_p = log_probabilities(ends[prompt.text].logits[0])
        measured[prompt.id] = {"frame": summed_probability(log_p, _answer_ids(tokenizer, prompt))}
    return measured


def _answer_ids(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    return [answer_id(tokenizer, prompt.text, answer) for answer in prompt.answers]


def _measure_substitution(
    tokenizer: Tokenizer, prompts: Sequence[Prompt], condition: str, ends: Ends
) -> dict[str, Measures]:
    """Which meaning, in a word's place, comes nearest to being followed by what follows the word.

    The answers themselves do not count: a word that calls up its meaning is not used as it is.
    """
    of_frame: defaultdict[tuple[str | None, str | None], list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        of_frame[prompt.type, prompt.template].append(prompt)
    measured: dict[str, Measures] = {}
    for group in of_frame.values():
        answers = spellings(tokenizer, group[0].answers)
        log_p = {
            text: log_probabilities_without(ends[text].logits[0], answers)
            for text in {text for prompt in group for text in substituted(prompt)}
        }
        for prompt in group:
            word, *meanings = (log_p[text] for text in substituted(prompt))
            nearness = [-float(kl_divergence(meaning, word)) for meaning in meanings]
            measured[prompt.id] = _chosen(prompt, nearness, assigned_answer(prompt, condition))
    return measured


def _chosen(prompt: Prompt, scores: Sequence[float], right: int) -> Measures:
    chosen, correct = choice(scores, right)
    answers = prompt.answers
    return {"assigned": answers[right], "chosen": answers[chosen], "correct": correct}


def _measure_controls(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    batch_size: int,
) -> dict[str, Measures]:
    """Loss over the whole text, and the probability of the continuation."""
    texts = [_continued(tokenizer, prompt.text, str(prompt.answer)) for prompt in prompts]
    questions = [Question(text.ids, range(len(text.ids) - 1)) for text in texts]
    measured: dict[str, Measures] = {}
    for index, reading in read(model, questions, batch_size):
        text = texts[index]
        log_p = token_log_probabilities(reading.logits, torch.tensor(text.ids[1:]))
        p = math.exp(float(log_p[text.marked[0] - 1 :].sum()))
        measured[prompts[index].id] = {"p": p, "loss": -float(log_p.mean())}
    return measured


def _measure_reverse(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    condition: str,
    batch_size: int,
) -> dict[str, Measures]:
    """Prompts that a made-up word of several tokens answers, the words by their probabilities."""
    asked = [(prompt, word) for prompt in prompts for word in prompt.answers]
    texts = [_continued(tokenizer, prompt.text, word) for prompt, word in asked]
    questions = [Question(text.ids, range(text.marked[0] - 1, len(text.ids) - 1)) for text in texts]
    total: dict[tuple[str, str], float] = {}
    for index, reading in read(model, questions, batch_size):
        prompt, word = asked[index]
        ids = torch.tensor(texts[index].ids[texts[index].marked[0] :])
        total[prompt.id, word] = float(token_log_probabilities(reading.logits, ids).sum())
    return {
        prompt.id: _chosen(
            prompt,
            [total[prompt.id, word] for word in prompt.answers],
            assigned_answer(prompt, condition),
        )
        for prompt in prompts
    }


def _continued(tokenizer: Tokenizer, prompt: str, answer: str) -> Encoded:
    """The prompt followed by a space and the answer, whose tokens are marked."""
    text = f"{prompt} {answer}"
    return encode(tokenizer, text, (len(prompt) + 1, len(text)))

"""Texts through a model in batches, reading it only at the positions asked for.

The vocabulary is most of a small model's work: Gemma 3 270M has 168 of its 268 million weights in
the unembedding, so no logits are computed that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def pad_right(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Stack rows of unequal length: ``[n_rows, longest]``.

    On the right whatever the tokenizer's setting, so that every token keeps its position; a causal
    model does not let what follows change what came before.
    """
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def padded_inputs(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` ``[n_rows, longest]``; padding is masked."""
    return {
        "input_ids": pad_right(rows, 0),
        "attention_mask": pad_right([[1] * len(row) for row in rows], 0),
    }


@dataclass(frozen=True)
class Question:
    """A text, and the positions after which the model is asked for the next token."""

    ids: tuple[int, ...]
    positions: range

    @property
    def trimmed(self) -> Question:
        """Without the tokens after the last position, which a causal model does not see there."""
        return Question(self.ids[: self.positions.stop], self.positions)


@dataclass(frozen=True)
class Reading:
    """What a model made of one question.

    Attributes:
        logits: of the next token after each position ``[n_positions, vocabulary]``, float32.
        residual: the residual stream after each layer, as its next reader finds it: the last
            layer's after the final norm ``[n_positions, n_layers, d_model]``, float32.
    """

    logits: Tensor
    residual: Tensor


def read(
    model: PreTrainedModel, questions: Sequence[Question], batch_size: int
) -> Iterator[tuple[int, Reading]]:
    """Read every question; texts of like length go through the model together, equal ones once.

    Yields:
        index of the question and its reading, the shortest text first.
    """
    asked_by: dict[Question, list[int]] = {}
    for index, question in enumerate(questions):
        asked_by.setdefault(question.trimmed, []).append(index)
    by_length = sorted(asked_by, key=lambda question: len(question.ids))
    for first in range(0, len(by_length), batch_size):
        batch = by_length[first : first + batch_size]
        counts = [len(question.positions) for question in batch]
        logits, residual = _read_batch(model, batch)
        readings = map(Reading, logits.split(counts), residual.split(counts))
        for question, reading in zip(batch, readings, strict=True):
            for index in asked_by[question]:
                yield index, reading


@torch.inference_mode()
def _read_batch(model: PreTrainedModel, batch: Sequence[Question]) -> tuple[Tensor, Tensor]:
    """Logits and residual stream of all positions asked for, text by text."""
    inputs = padded_inputs([question.ids for question in batch])
    output = model.get_decoder()(**inputs, use_cache=False, output_hidden_states=True)
    rows = [row for row, question in enumerate(batch) for _ in question.positions]
    positions = [position for question in batch for position in question.positions]
    # the first of the hidden states is the embedding
    layers = [states[rows, positions] for states in output.hidden_states[1:]]
    return unembed(model, output.last_hidden_state[rows, positions]), torch.stack(layers, dim=1)


def unembed(model: PreTrainedModel, normalised: Tensor) -> Tensor:
    """Logits ``[n, vocabulary]`` of the final norm's output ``[n, d_model]``."""
    return softcapped(model, model.get_output_embeddings()(normalised))


def softcapped(model: PreTrainedModel, logits: Tensor) -> Tensor:
    """Logits as the model gives them out: pressed between two bounds, if its config says so."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap

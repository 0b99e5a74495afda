"""Texts through a model in batches, each token once, reading it only at the positions asked for.

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
    """Read every question; what texts of a batch have in common in front is read once.

    Yields:
        index of the question and its reading, in the order of the tokens.
    """
    # A causal model does not see at a position what comes after it, so that it may be left out.
    texts = [question.ids[: question.positions.stop] for question in questions]
    order = sorted(range(len(texts)), key=texts.__getitem__)
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        asked = [
            [texts[index][: position + 1] for position in questions[index].positions]
            for index in batch
        ]
        nodes = list(dict.fromkeys(prefix for prefixes in asked for prefix in prefixes))
        logits, residual = _read_tree(model, [texts[index] for index in batch], nodes)
        place = {prefix: row for row, prefix in enumerate(nodes)}
        for index, prefixes in zip(batch, asked, strict=True):
            rows = [place[prefix] for prefix in prefixes]
            yield index, Reading(logits[rows], residual[rows])


_Prefix = tuple[int, ...]  # a text's tokens up to one of them, which stands for that token


@torch.inference_mode()
def _read_tree(
    model: PreTrainedModel, texts: Sequence[_Prefix], asked: Sequence[_Prefix]
) -> tuple[Tensor, Tensor]:
    """Logits and residual stream after each of the prefixes ``asked``.

    The texts go through the model as one row, the tree of their prefixes, in which a token sees
    those of its own text alone (SpecInfer, arXiv 2305.09781).
    """
    tree = list(dict.fromkeys(text[:end] for text in texts for end in range(1, len(text) + 1)))
    place = {prefix: row for row, prefix in enumerate(tree)}
    positions = torch.tensor([len(prefix) - 1 for prefix in tree])
    sees = torch.zeros(len(tree), len(tree), dtype=torch.bool)
    for row, prefix in enumerate(tree):
        sees[row, [place[prefix[:end]] for end in range(1, len(prefix) + 1)]] = True
    output = model.get_decoder()(
        input_ids=torch.tensor([[prefix[-1] for prefix in tree]]),
        position_ids=positions[None],
        attention_mask=_masks(model, sees, positions),
        use_cache=False,
        output_hidden_states=True,
    )
    rows = [place[prefix] for prefix in asked]
    # the first of the hidden states is the embedding
    layers = [states[0, rows] for states in output.hidden_states[1:]]
    return unembed(model, output.last_hidden_state[0, rows]), torch.stack(layers, dim=1)


def _masks(model: PreTrainedModel, sees: Tensor, positions: Tensor) -> Tensor | dict[str, Tensor]:
    """What is added to attention scores ``[1, 1, n_queries, n_keys]``, by type of layer where the
    model has several types; ``sees`` is ``[n_queries, n_keys]``, ``positions [n]``."""

    def added(seen: Tensor) -> Tensor:
        lowest = torch.finfo(torch.float32).min
        return torch.zeros(seen.shape).masked_fill(~seen, lowest)[None, None]

    if getattr(model.config, "layer_types", None) is None:
        return added(sees)
    masks = {"full_attention": added(sees)}
    if "sliding_attention" in model.config.layer_types:
        near = positions[:, None] - positions < model.config.sliding_window
        masks["sliding_attention"] = added(sees & near)
    return masks


def unembed(model: PreTrainedModel, normalised: Tensor) -> Tensor:
    """Logits ``[n, vocabulary]`` of the final norm's output ``[n, d_model]``."""
    return softcapped(model, model.get_output_embeddings()(normalised))


def softcapped(model: PreTrainedModel, logits: Tensor) -> Tensor:
    """Logits as the model gives them out: pressed between two bounds, if its config says so."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap

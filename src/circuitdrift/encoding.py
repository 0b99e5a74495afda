"""Texts as token ids, with the tokens of a stretch of characters marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Encoded:
    """A text as the tokenizer usually encodes it, with its special tokens in front.

    Attributes:
        ids: token ids.
        marked: positions of the tokens that stand for the marked characters, ascending. Special
            tokens stand for no characters.
    """

    ids: tuple[int, ...]
    marked: tuple[int, ...]

    @property
    def marked_ids(self) -> list[int]:
        return [self.ids[position] for position in self.marked]


def encode(tokenizer: PreTrainedTokenizerFast, text: str, span: tuple[int, int]) -> Encoded:
    """Encode ``text`` and mark the tokens that overlap the characters ``span[0]:span[1]``."""
    encoding = tokenizer(text, return_offsets_mapping=True)
    marked = tuple(
        position
        for position, (start, end) in enumerate(encoding["offset_mapping"])
        if start < span[1] and end > span[0]
    )
    return Encoded(tuple(encoding["input_ids"]), marked)


def pad_right(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Stack rows of unequal length: ``[n_rows, longest]``.

    On the right whatever the tokenizer's setting, so that every token keeps its position; a causal
    model does not let what follows change what came before.
    """
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def padded_inputs(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The model's ``input_ids`` and ``attention_mask``, each ``[n_rows, longest]``.

    The padding's id is immaterial, for it is masked.
    """
    return {
        "input_ids": pad_right(rows, 0),
        "attention_mask": pad_right([[1] * len(row) for row in rows], 0),
    }

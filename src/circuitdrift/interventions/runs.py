"""Prompts run through a model as it is, or with activations replaced, and read at their target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.encoding import pad_right
from circuitdrift.forward_pass import softcapped
from circuitdrift.interventions.activations import (
    Replacement,
    recorded_activations,
    replaced_activations,
)
from circuitdrift.interventions.prompts import TargetPrompt


@dataclass(frozen=True)
class Edit:
    """One run of a prompt with some of its activations replaced.

    Attributes:
        mask: True where an activation is replaced ``[n_layers, n_positions, d_mlp]``.
        values: what replaces it, of the same shape.
    """

    prompt: TargetPrompt
    mask: Tensor
    values: Tensor


Trial = tuple[dict[str, Any], Edit]
"""An edit, and the row of a table that its target will stand in."""


@dataclass(frozen=True)
class Recording:
    """What a model did on prompts with nothing replaced.

    Attributes:
        activations: of each prompt's neurons ``[n_layers, n_positions, d_mlp]``.
        targets: logits ``[n_prompts]``.
    """

    activations: tuple[Tensor, ...]
    targets: Tensor


@torch.no_grad()
def targets(model: PreTrainedModel, prompts: Sequence[TargetPrompt]) -> Tensor:
    """Each prompt's target in ``model``, in logits ``[n_prompts]``.

    The logit of the answer minus the mean logit of the others after the last token. Only the rows
    of the unembedding that some prompt asks for are used: the vocabulary is most of a small model's
    work. Prompts are padded on the right, which needs no mask where attention is causal.
    """
    last_positions = torch.tensor([len(prompt.tokens) for prompt in prompts]) - 1
    tokens = pad_right([prompt.tokens for prompt in prompts], 0)
    states = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    asked = sorted({token for prompt in prompts for token in (prompt.answer, *prompt.others)})
    last = states[torch.arange(len(prompts)), last_positions]
    logits = softcapped(model, last @ model.lm_head.weight[asked].T)
    column = {token: index for index, token in enumerate(asked)}
    return torch.stack(
        [
            row[column[prompt.answer]] - row[[column[other] for other in prompt.others]].mean()
            for row, prompt in zip(logits, prompts, strict=True)
        ]
    )


def edited_targets(model: PreTrainedModel, edits: Sequence[Edit]) -> Tensor:
    """The target of each edit's prompt under that edit, all in one forward pass ``[n_edits]``.

    Raises:
        ValueError: if an edit's tensors do not fit its prompt and the model.
    """
    masks = _stacked([edit.mask for edit in edits])
    values = _stacked([edit.values for edit in edits])
    replacements = {
        layer: Replacement(mask, values[layer]) for layer, mask in enumerate(masks) if mask.any()
    }
    with replaced_activations(model, replacements):
        return targets(model, [edit.prompt for edit in edits])


def results(
    model: PreTrainedModel, trials: Iterable[Trial], column: str, batch_size: int
) -> Iterator[dict[str, Any]]:
    """The trials' rows, each with the target under its edit as ``column``.

    Trials are made when they are due and share forward passes in their order, so trials of one
    prompt, or of prompts of like length, belong beside each other.
    """
    waiting = iter(trials)
    while batch := list(islice(waiting, batch_size)):
        found = edited_targets(model, [edit for _, edit in batch])
        for (row, _), value in zip(batch, found.tolist(), strict=True):
            yield {**row, column: value}


def record(model: PreTrainedModel, prompts: Sequence[TargetPrompt], batch_size: int) -> Recording:
    """Run the prompts as they are; keep their activations and targets."""
    activations: list[Tensor] = []
    found: list[Tensor] = []
    for first in range(0, len(prompts), batch_size):
        batch = prompts[first : first + batch_size]
        with recorded_activations(model) as seen:
            found.append(targets(model, batch))
        # [n_layers, n_prompts, n_positions, d_mlp]
        layers = torch.stack([seen[layer] for layer in range(len(seen))])
        for row, prompt in enumerate(batch):
            activations.append(layers[:, row, : len(prompt.tokens)].clone())
    return Recording(tuple(activations), torch.cat(found))


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors ``[n_layers, n_positions, d_mlp]`` of several prompts, layers first and padded with
    zeros: ``[n_layers, n_prompts, longest, d_mlp]``."""
    n_layers, _, d_mlp = tensors[0].shape
    longest = max(tensor.shape[1] for tensor in tensors)
    stacked = tensors[0].new_zeros(n_layers, len(tensors), longest, d_mlp)
    for row, tensor in enumerate(tensors):
        stacked[:, row, : tensor.shape[1]] = tensor
    return stacked

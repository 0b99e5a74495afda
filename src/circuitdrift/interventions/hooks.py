"""The activations of MLP neurons, recorded and replaced while a model runs on prompts.

A neuron's activation is its entry in the input of its layer's down projection,
``[n_prompts, n_positions, d_mlp]``. Both context managers leave the model as they found it, also
when what runs inside them fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.models.reading import pad_right, softcapped

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Edit:
    """One run of a prompt with some of its activations replaced."""

    prompt: TracedPrompt
    mask: Tensor  # True where an activation is replaced [n_layers, n_positions, d_mlp]
    values: Tensor  # what replaces it, of the same shape


@contextmanager
def replaced_activations(model: PreTrainedModel, edits: Sequence[Edit]) -> Iterator[None]:
    """Inside, a forward pass of the edits' prompts, in their order, has these activations in place
    of its own.

    Raises:
        ValueError: in the forward pass, if an edit is longer than the padded prompts.
    """
    with ExitStack() as hooks:
        for layer, block in enumerate(model.model.layers):
            of_layer = [(edit.mask[layer], edit.values[layer]) for edit in edits]
            if any(mask.any() for mask, _ in of_layer):
                hook = partial(_replace, of_layer)
                hooks.enter_context(block.mlp.down_proj.register_forward_pre_hook(hook))
        yield


@contextmanager
def recorded_activations(model: PreTrainedModel) -> Iterator[dict[int, Tensor]]:
    """Inside, every forward pass leaves each layer's activations in the yielded dictionary.

    They are those that the down projection reads: entered inside :func:`replaced_activations`,
    the replaced ones.
    """
    seen: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for layer, block in enumerate(model.model.layers):
            hook = partial(_record, seen, layer)
            hooks.enter_context(block.mlp.down_proj.register_forward_pre_hook(hook))
        yield seen


def _replace(
    replacements: Sequence[tuple[Tensor, Tensor]], _module: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    """In place: nothing else reads these activations, and copies cost as much as the layer."""
    (activations,) = inputs
    for own, (mask, values) in zip(activations, replacements, strict=True):
        if len(mask) > len(own):
            raise ValueError(f"an edit of {len(mask)} positions in a pass of {len(own)}")
        own[: len(mask)] = torch.where(mask, values, own[: len(mask)])


def _record(
    seen: dict[int, Tensor], layer: int, _module: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    (seen[layer],) = inputs


Trial = tuple[dict[str, Any], Edit]
"""An edit, and the row of a table that its target will stand in."""


@dataclass(frozen=True)
class Recording:
    """What a model did on prompts with nothing replaced."""

    activations: tuple[Tensor, ...]  # of each prompt's neurons [n_layers, n_positions, d_mlp]
    targets: Tensor  # logits [n_prompts]


@torch.no_grad()
def targets(model: PreTrainedModel, prompts: Sequence[TracedPrompt]) -> Tensor:
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
    """The target of each edit's prompt under that edit, all in one forward pass ``[n_edits]``."""
    with replaced_activations(model, edits):
        return targets(model, [edit.prompt for edit in edits])


def results(
    model: PreTrainedModel, trials: Iterable[Trial], column: str, batch_size: int
) -> list[dict[str, Any]]:
    """The trials' rows, each with the target under its edit as ``column``.

    Trials are made when they are due and share forward passes in their order, so trials of one
    prompt, or of prompts of like length, belong beside each other.
    """
    waiting, rows = iter(trials), []
    while batch := list(islice(waiting, batch_size)):
        found = edited_targets(model, [edit for _, edit in batch]).tolist()
        rows += [{**row, column: value} for (row, _), value in zip(batch, found, strict=True)]
    return rows


def record(model: PreTrainedModel, prompts: Sequence[TracedPrompt], batch_size: int) -> Recording:
    """Run the prompts as they are; keep their activations and targets."""
    activations, found = [], []
    for first in range(0, len(prompts), batch_size):
        batch = prompts[first : first + batch_size]
        with recorded_activations(model) as seen:
            found.append(targets(model, batch))
        # [n_layers, n_prompts, n_positions, d_mlp]
        layers = torch.stack([seen[layer] for layer in range(len(seen))])
        for row, prompt in enumerate(batch):
            activations.append(layers[:, row, : len(prompt.tokens)].clone())
    return Recording(tuple(activations), torch.cat(found))

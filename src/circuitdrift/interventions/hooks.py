"""The activations of MLP neurons, recorded and replaced while a model runs on prompts.

A neuron's activation is its entry in the input of its layer's down projection,
``[n_prompts, n_positions, d_mlp]``. Both context managers leave the model as it was, also when what
runs inside them fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

Row = dict[str, Any]


@dataclass(frozen=True)
class Edit:
    """One run of a prompt with some of its activations replaced."""

    prompt: TracedPrompt
    masks: Mapping[int, Tensor]  # by layer, True where one is replaced [n_positions, d_mlp]
    values: Tensor  # what replaces them [n_layers, n_positions, d_mlp]


def edit(prompt: TracedPrompt, places: Tensor, index: Tensor, values: Tensor) -> Edit:
    """Replace the neurons of a set, given by parts of a prompt, wherever it has these parts.

    Args:
        places: True for each neuron of the set ``[n_layers, n_parts, d_mlp]``.
        index: which part each token belongs to ``[n_positions]``.
    """
    layers = places.flatten(1).any(1).nonzero().flatten().tolist()
    return Edit(prompt, {layer: places[layer][index] for layer in layers}, values)


@contextmanager
def replaced_activations(model: PreTrainedModel, edits: Sequence[Edit]) -> Iterator[None]:
    """Inside, a forward pass of the edits' prompts, in their order, has these activations in place
    of its own.

    Raises:
        ValueError: in the forward pass, if an edit is longer than the padded prompts.
    """
    with ExitStack() as hooks:
        for layer, block in enumerate(model.model.layers):
            of_layer = [
                (row, one.masks[layer], one.values[layer])
                for row, one in enumerate(edits)
                if layer in one.masks
            ]
            if of_layer:
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
    replacements: Sequence[tuple[int, Tensor, Tensor]],
    _module: nn.Module,
    inputs: tuple[Tensor, ...],
) -> None:
    """In place: nothing else reads these activations, and copies cost as much as the layer."""
    (activations,) = inputs
    for row, mask, values in replacements:
        own = activations[row, : len(mask)]
        if len(mask) > len(own):
            raise ValueError(f"an edit of {len(mask)} positions in a pass of {len(own)}")
        torch.where(mask, values, own, out=own)


def _record(
    seen: dict[int, Tensor], layer: int, _module: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    (seen[layer],) = inputs


@torch.no_grad()
def answer_logits(model: PreTrainedModel, prompts: Sequence[TracedPrompt]) -> list[Tensor]:
    """The logits of each prompt's answers after its last token, each ``[n_answers]``.

    Only the rows of the unembedding that some prompt asks for are used: the vocabulary is most of a
    small model's work. Prompts are padded on the right, which needs no mask where attention is
    causal.
    """
    last_positions = torch.tensor([len(prompt.tokens) for prompt in prompts]) - 1
    tokens = pad_right([prompt.tokens for prompt in prompts], 0)
    states = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    vocabulary = sorted({token for prompt in prompts for token in prompt.answers})
    last = states[torch.arange(len(prompts)), last_positions]
    logits = softcapped(model, last @ model.lm_head.weight[vocabulary].T)
    columns = [[vocabulary.index(token) for token in prompt.answers] for prompt in prompts]
    return [row[of_prompt] for row, of_prompt in zip(logits, columns, strict=True)]


def target(prompt: TracedPrompt, logits: Tensor) -> float:
    """The logit of the prompt's answer minus the mean logit of its other answers."""
    others = [index for index in range(len(logits)) if index != prompt.answer]
    return float(logits[prompt.answer] - logits[others].mean())


def run_edits(
    model: PreTrainedModel, trials: Iterable[tuple[Row, Edit]], batch_size: int
) -> Iterator[tuple[Row, TracedPrompt, Tensor]]:
    """Each trial's row and prompt, and the logits of its answers under its edit ``[n_answers]``.

    Trials are made when they are due and share forward passes in their order, so trials of one
    prompt, or of prompts of like length, belong beside each other.
    """
    waiting = iter(trials)
    while batch := list(islice(waiting, batch_size)):
        edits = [one for _, one in batch]
        with replaced_activations(model, edits):
            logits = answer_logits(model, [one.prompt for one in edits])
        for (row, one), of_answers in zip(batch, logits, strict=True):
            yield row, one.prompt, of_answers


@dataclass(frozen=True)
class Recording:
    """What a model did on prompts with nothing replaced."""

    activations: tuple[Tensor, ...]  # of each prompt's neurons [n_layers, n_positions, d_mlp]
    logits: tuple[Tensor, ...]  # of each prompt's answers [n_answers]


def record(model: PreTrainedModel, prompts: Sequence[TracedPrompt], batch_size: int) -> Recording:
    """Run the prompts as they are; those of like length together."""
    order = shortest_first(prompts)
    activations: dict[int, Tensor] = {}
    logits: dict[int, Tensor] = {}
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        with recorded_activations(model) as seen:
            of_answers = answer_logits(model, [prompts[index] for index in batch])
        logits.update(zip(batch, of_answers, strict=True))
        # [n_layers, n_prompts, n_positions, d_mlp]
        layers = torch.stack([seen[layer] for layer in range(len(seen))])
        for row, index in enumerate(batch):
            activations[index] = layers[:, row, : len(prompts[index].tokens)].clone()
    indices = range(len(prompts))
    return Recording(tuple(activations[i] for i in indices), tuple(logits[i] for i in indices))


def shortest_first(prompts: Sequence[TracedPrompt]) -> list[int]:
    """Indices of the prompts in an order that pads little."""
    return sorted(range(len(prompts)), key=lambda index: len(prompts[index].tokens))

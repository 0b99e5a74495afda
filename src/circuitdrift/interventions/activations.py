"""The activations of MLP neurons, recorded and replaced while a model runs.

A neuron's activation is its entry in the input of its layer's down projection,
``[n_prompts, n_positions, d_mlp]``. Both context managers leave the model as they found it, also
when what runs inside them fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Replacement:
    """What some activations of one layer are set to.

    Attributes:
        mask: True where an activation is replaced ``[n_prompts, n_positions, d_mlp]``.
        values: what replaces it, of the same shape.

    Raises:
        ValueError: if the shapes differ.
    """

    mask: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        if self.mask.shape != self.values.shape:
            raise ValueError(
                f"a mask {tuple(self.mask.shape)} needs values of its shape, "
                f"got {tuple(self.values.shape)}"
            )


@contextmanager
def replaced_activations(
    model: PreTrainedModel, replacements: Mapping[int, Replacement]
) -> Iterator[None]:
    """Inside, every forward pass has these activations in place of its own, layer by layer.

    Raises:
        ValueError: in the forward pass, if a mask has not the shape of its layer's activations.
    """
    with ExitStack() as hooks:
        for layer, replacement in replacements.items():
            down = model.model.layers[layer].mlp.down_proj
            hooks.enter_context(down.register_forward_pre_hook(_replacing(layer, replacement)))
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
            hook = _recording(layer, seen)
            hooks.enter_context(block.mlp.down_proj.register_forward_pre_hook(hook))
        yield seen


def _replacing(layer: int, replacement: Replacement) -> Callable[..., tuple[Tensor]]:
    mask, values = replacement.mask, replacement.values

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        (activations,) = inputs
        if mask.shape != activations.shape:
            raise ValueError(
                f"layer {layer} has activations {tuple(activations.shape)}, "
                f"its mask has the shape {tuple(mask.shape)}"
            )
        return (torch.where(mask, values, activations),)

    return hook


def _recording(layer: int, seen: dict[int, Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (seen[layer],) = inputs

    return hook

"""The positive control: a change whose place is known, made in a merged model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def planting(model: PreTrainedModel, layer: int, feature: int, scale: float) -> Iterator[None]:
    """Multiply what one neuron writes (its column of the down projection) by ``scale``.

    When the context ends the weights are, bit for bit, what they were.
    """
    weight = model.model.layers[layer].mlp.down_proj.weight
    column = weight[:, feature].detach().clone()

    def write(values: Tensor) -> None:
        with torch.no_grad():
            weight[:, feature] = values

    write(column * scale)
    try:
        yield
    finally:
        write(column)


def choose_planted(mean_effect: Tensor, among: int, seed: int) -> tuple[int, int]:
    """Draw the neuron to change: layer and feature, uniform over the ``among`` strongest.

    Among strong neurons, because scaling one that does nothing changes nothing; drawn, because a
    hand-picked one would be the easiest to find. Every neuron has a number of its own from the
    seed, and the least is drawn: whatever the order of the strongest, and mostly whatever the last
    of them, so that last bits draw no other.

    Args:
        mean_effect: signed effect, mean over prompts ``[n_layers, d_mlp]``; |mean| ranks, and of
            equals the lower layer and feature come first.

    Raises:
        ValueError: if there are fewer than ``among`` features.
    """
    if among > mean_effect.numel():
        raise ValueError(f"{among} neurons to draw from, and the model has {mean_effect.numel()}")
    strongest = mean_effect.abs().flatten().argsort(descending=True, stable=True)[:among]
    lots = torch.rand(mean_effect.numel(), generator=torch.Generator().manual_seed(seed))
    drawn = int(strongest[lots[strongest].argmin()])
    return divmod(drawn, mean_effect.shape[1])

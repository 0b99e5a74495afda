"""Which neurons a graph expands, or chooses among, before any edge is known."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.models.architecture import mlp_activation


def strongest(neurons: Tensor, n: int) -> Tensor:
    """The ``n`` neurons of largest |effect| over all layers and positions.

    Args:
        neurons: effects ``[n_layers, n_positions, d_mlp]``.

    Returns:
        (layer, position, neuron), ascending ``[min(n, all), 3]``.
    """
    magnitude = neurons.abs().flatten()
    chosen = torch.topk(magnitude, min(n, len(magnitude))).indices.sort().values
    return torch.stack(torch.unravel_index(chosen, neurons.shape), dim=1)


@torch.no_grad()
def loudest(linear: LinearModel, per_place: int, decoder_norms: Tensor) -> Tensor:
    """The neurons that write the longest vectors at each layer and position of the first prompt.

    Among them a graph grows by influence. The cut is per place because the first token's neurons
    write vectors so long that a common cut would take little else.

    Args:
        decoder_norms: see :func:`decoder_norms`.

    Returns:
        (layer, position, neuron), ascending ``[n_layers * n_positions * per_place, 3]``.
    """
    n_positions = linear.frozen.embeddings.shape[1]
    places = []
    for layer, frozen in enumerate(linear.frozen.layers):
        phi = mlp_activation(linear.block(layer).mlp)
        written = (phi(frozen.gate) * frozen.up)[0].abs() * decoder_norms[layer]
        count = min(per_place, written.shape[1])
        neurons = written.topk(count, dim=1).indices.sort(dim=1).values
        position = torch.arange(n_positions).repeat_interleave(count)
        layers = torch.full_like(position, layer)
        places.append(torch.stack([layers, position, neurons.flatten()], dim=1))
    return torch.cat(places)


@torch.no_grad()
def decoder_norms(model: PreTrainedModel) -> Tensor:
    """Length of every neuron's column of the down projection ``[n_layers, d_mlp]``.

    A tenth of a graph's time, and the same for every prompt.
    """
    return torch.stack([layer.mlp.down_proj.weight.norm(dim=0) for layer in model.model.layers])

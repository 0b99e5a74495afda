"""Which neurons a graph expands, or chooses among, before any edge is known."""

from __future__ import annotations

import torch
from torch import Tensor

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
def loudest(linear: LinearModel, per_place: int) -> Tensor:
    """The neurons that write the longest vectors at each layer and position of the first prompt.

    Among them a graph grows by influence. The cut is per place because the first token's neurons
    write vectors so long that a common cut would take little else.

    Returns:
        (layer, position, neuron), ascending ``[n_layers * n_positions * per_place, 3]``.
    """
    n_positions = linear.frozen.embeddings.shape[1]
    places = []
    for layer, frozen in enumerate(linear.frozen.layers):
        mlp = linear.block(layer).mlp
        activation = (mlp_activation(mlp)(frozen.gate) * frozen.up)[0]
        written = activation.abs() * mlp.down_proj.weight.norm(dim=0)
        count = min(per_place, written.shape[1])
        neurons = written.topk(count, dim=1).indices.sort(dim=1).values
        position = torch.arange(n_positions).repeat_interleave(count)
        layers = torch.full_like(position, layer)
        places.append(torch.stack([layers, position, neurons.flatten()], dim=1))
    return torch.cat(places)

"""Which neurons a graph expands, chosen from all of them before any edge is known."""

from __future__ import annotations

import torch
from torch import Tensor


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

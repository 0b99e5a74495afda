"""Circuits as sets of units, so that one found on some prompts can be run on others.

A unit is a neuron in a segment of the prompt: (layer, segment, neuron), segments in the order of
:data:`circuitdrift.core.study.SEGMENTS`. A set of units is a boolean tensor
``[n_layers, n_segments, d_mlp]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from circuitdrift.circuits.circuit import Circuit
from circuitdrift.core.study import SEGMENTS


def segment_indices(segments: Sequence[str]) -> Tensor:
    """Each token's segment as an index into SEGMENTS ``[n_positions]``."""
    return torch.tensor([SEGMENTS.index(segment) for segment in segments])


def unit_scores(circuits: Sequence[Circuit]) -> Tensor:
    """What the units do on average ``[n_layers, n_segments, d_mlp]``, in logits, at least 0.

    The mean over the prompts in which the segment exists of |the sum of the signed effects over
    the segment's positions|; 0 for a segment that no prompt has.
    """
    total, n_prompts = torch.zeros(()), torch.zeros(len(SEGMENTS))
    for circuit in circuits:
        index = segment_indices(circuit.prompt.segments)
        n_layers, _, d_mlp = circuit.effects.shape
        summed = torch.zeros(n_layers, len(SEGMENTS), d_mlp)
        total = total + summed.index_add_(1, index, torch.from_numpy(circuit.effects)).abs()
        n_prompts[index.unique()] += 1
    return total / n_prompts.clamp(min=1).view(-1, 1)


def unit_ranks(scores: Tensor) -> Tensor:
    """Place of each unit, 0 for the largest score; equal scores in the units' order."""
    order = scores.flatten().argsort(descending=True, stable=True)
    return _places(order).view(scores.shape)


def ranks_by_type(circuits: Sequence[Circuit]) -> dict[str, Tensor]:
    """:func:`unit_ranks` of each constraint type, from its discovery prompts, types in order."""
    of_type: dict[str, list[Circuit]] = {}
    for circuit in circuits:
        if circuit.prompt.role == "discovery":
            of_type.setdefault(str(circuit.prompt.type), []).append(circuit)
    return {name: unit_ranks(unit_scores(of_type[name])) for name in sorted(of_type)}


def units_of_size(ranks: Tensor, size: float) -> Tensor:
    """The circuit that holds the first ``round(size * n_units)`` units of :func:`unit_ranks`."""
    return ranks < round(size * ranks.numel())


def random_ranks(shape: Sequence[int], generator: np.random.Generator) -> Tensor:
    """Random places of the neurons within each layer and segment, ``shape``."""
    return _places(torch.from_numpy(generator.random(tuple(shape))).argsort(dim=-1))


def matched_units(ranks: Tensor, circuit: Tensor) -> Tensor:
    """The random circuit with as many units as ``circuit`` in every layer and segment.

    Of one draw of :func:`random_ranks`, the larger circuits contain the smaller.
    """
    return ranks < circuit.sum(-1, keepdim=True)


def at_positions(units: Tensor, segments: Sequence[str]) -> Tensor:
    """The units' neurons on a prompt with these segments ``[n_layers, n_positions, d_mlp]``.

    Takes values of units (means) as well as sets of them.
    """
    return units[:, segment_indices(segments)]


def _places(order: Tensor) -> Tensor:
    """The inverse of permutations along the last axis."""
    places = torch.arange(order.shape[-1]).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)

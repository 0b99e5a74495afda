"""Nodes ablated one at a time in the real model: does a linear effect rank what they do?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from circuitdrift.interventions.ablation import Subject
from circuitdrift.interventions.prompts import TargetPrompt
from circuitdrift.interventions.runs import Edit, Trial, results

SHARE = 0.99


def stratified_nodes(effects: Tensor, n: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``n`` nodes over the whole range of |effect|: (layer, position, neuron) ``[n, 3]``.

    They come from the fewest nodes that hold 99 % of the total |effect|, the strongest first. These
    are divided into ``n`` intervals that widen geometrically, and each interval gives one node:
    |effect| spans orders of magnitude, and an even draw would hardly meet a node that matters.

    Args:
        effects: ``[n_layers, n_positions, d_mlp]``.

    Returns:
        The strongest first; fewer than ``n``, all of them, where fewer hold the 99 %.
    """
    magnitude = effects.abs().double().flatten()
    order = magnitude.argsort(descending=True, stable=True)
    held = magnitude[order].cumsum(0)
    n_holding = int((held < SHARE * held[-1]).sum()) + 1
    edges = _widening(n_holding, min(n, n_holding))
    places = [int(generator.integers(low, high)) for low, high in pairwise(edges)]
    return np.stack(np.unravel_index(order[places].numpy(), effects.shape), axis=1)


def node_trials(prompt: TargetPrompt, nodes: NDArray[np.int64], effects: Tensor) -> Iterator[Trial]:
    """Each node alone set to 0, its effect in the row.

    Args:
        effects: of the prompt's neurons ``[n_layers, n_positions, d_mlp]``.
    """
    nothing = torch.zeros_like(effects)
    for node in map(tuple, nodes.tolist()):
        mask = torch.zeros_like(effects, dtype=torch.bool)
        mask[node] = True
        yield {"effect": effects[node].item()}, Edit(prompt, mask, nothing)


def rank_agreement(
    subject: Subject, index: int, nodes: NDArray[np.int64], effects: Tensor, batch_size: int
) -> float:
    """Spearman's correlation of the nodes' effects with what the target loses without each.

    Args:
        index: of the prompt in ``subject``.
        nodes, effects: as :func:`node_trials` takes them.
    """
    trials = node_trials(subject.prompts[index], nodes, effects)
    rows = list(results(subject.model, trials, "ablated", batch_size))
    lost = [subject.full[index].item() - row["ablated"] for row in rows]
    return float(spearmanr([row["effect"] for row in rows], lost).statistic)


def _widening(n_places: int, n_intervals: int) -> list[int]:
    """Edges of intervals of 0..n_places whose widths grow geometrically, each at least 1.

    Where the geometric edge r^i - 1 has overtaken i it grows by at least 1 a step, so the larger of
    the two always ascends.
    """
    ratio = (n_places + 1) ** (1 / n_intervals)
    return [max(i, round(ratio**i - 1)) for i in range(n_intervals)] + [n_places]

"""Comparison of two circuits of one prompt: one row of the table of drift, and where it lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.comparison import (
    Array,
    aligned,
    drift,
    effect_change,
    overlap,
    signed_drift,
    spearman,
    weighted_jaccard,
)
from circuitdrift.graph import Circuit, CircuitGraph, NodeKind
from circuitdrift.identifiers import BASE, feature_name


def checkpoint_pairs(checkpoints: Sequence[str]) -> list[tuple[str, str]]:
    """Base with every checkpoint, then every checkpoint with the next."""
    return [(BASE, later) for later in checkpoints] + list(pairwise(checkpoints))


def match_circuits(
    before: Sequence[Circuit], after: Sequence[Circuit]
) -> Iterator[tuple[Circuit, Circuit]]:
    """Pair the circuits of two checkpoints prompt by prompt.

    Raises:
        ValueError: if they were traced on other prompts or for other targets.
    """
    for a, b in zip(before, after, strict=True):
        if (a.prompt, a.tokens, a.answer, a.others) != (b.prompt, b.tokens, b.answer, b.others):
            raise ValueError(f"circuits of different prompts or targets: {a.prompt}, {b.prompt}")
        yield a, b


def compare_pair(a: Circuit, b: Circuit) -> dict[str, Any]:
    """Drift from circuit ``a`` to circuit ``b``, and every measure that stands beside it."""
    effects_a, effects_b = _array(a), _array(b)
    nodes = overlap(a.graph.node_set(), b.graph.node_set())
    edges = overlap(a.graph.edge_set(), b.graph.edge_set())
    influence_a, influence_b = aligned(_influence(a.graph), _influence(b.graph))
    return {
        "drift": drift(effects_a, effects_b),
        "signed_drift": signed_drift(effects_a, effects_b),
        "influence_drift": 1 - weighted_jaccard(influence_a, influence_b),
        "spearman": spearman(np.abs(effects_a), np.abs(effects_b)),
        "node_jaccard": nodes.jaccard,
        "nodes_added": nodes.added,
        "nodes_removed": nodes.removed,
        "edge_jaccard": edges.jaccard,
        "edges_added": edges.added,
        "edges_removed": edges.removed,
        "effect_moved": float(np.abs(effects_b - effects_a).sum()),
        "target_from": a.value,
        "target_to": b.value,
        **{f"{name}_from": value for name, value in vars(a.graph.scores).items()},
        **{f"{name}_to": value for name, value in vars(b.graph.scores).items()},
    }


def change_by_place(a: Circuit, b: Circuit) -> pd.DataFrame:
    """Effect gained, lost and moved by layer and segment of the prompt, in logits."""
    change = effect_change(_array(a), _array(b))
    n_layers, n_positions = change.gained.shape
    table = pd.DataFrame(
        {
            "layer": np.repeat(np.arange(n_layers), n_positions),
            "segment": np.tile(np.array(b.segments, dtype=object), n_layers),
            **{name: value.ravel() for name, value in vars(change).items()},
        }
    )
    return table.groupby(["layer", "segment"], sort=True, as_index=False).sum()


def feature_changes(pairs: Sequence[tuple[Circuit, Circuit]], n_top: int) -> pd.DataFrame:
    """The features whose effect, summed over positions, changed most on average over prompts.

    Returns:
        ``n_top`` rows: feature, its mean effect before and after, the mean change (logits), and
        the share of prompts on which the change has the mean's sign.
    """
    before = np.stack([_array(a).sum(1) for a, _ in pairs])
    after = np.stack([_array(b).sum(1) for _, b in pairs])
    change = after - before
    mean = change.mean(0)
    top = np.argsort(-np.abs(mean), axis=None, kind="stable")[:n_top]
    layers, features = np.unravel_index(top, mean.shape)
    agrees = np.sign(change) == np.sign(mean)
    return pd.DataFrame(
        {
            "feature": [
                feature_name(layer, unit) for layer, unit in zip(layers, features, strict=True)
            ],
            "layer": layers,
            "effect_from": before.mean(0)[layers, features],
            "effect_to": after.mean(0)[layers, features],
            "change": mean[layers, features],
            "agreement": agrees.mean(0)[layers, features],
        }
    )


def _array(circuit: Circuit) -> Array:
    return circuit.effects.numpy().astype(np.float64)


def _influence(graph: CircuitGraph) -> dict[Any, float]:
    """Influence of the kept features by (layer, position, neuron)."""
    features = graph.nodes[:, 0] == NodeKind.FEATURE
    nodes = (tuple(row) for row in graph.nodes[features, 1:].tolist())
    return dict(zip(nodes, graph.influence[features].tolist(), strict=True))

"""Comparison of the circuits of two checkpoints, prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.comparison import Array, Change, effect_change, spearman
from circuitdrift.graph import Circuit
from circuitdrift.graph_pairs import compare_graphs
from circuitdrift.identifiers import SEGMENTS, feature_name
from circuitdrift.node_sets import NodeSets, in_either, node_sets


@dataclass(frozen=True)
class MeasuredCircuit:
    """A circuit with what every comparison of it asks for, computed once.

    Attributes:
        effects: the circuit's ``[n_layers, n_positions, d_mlp]``, logits.
        sets: its node sets.
    """

    circuit: Circuit
    effects: Array
    sets: NodeSets


def measure(circuit: Circuit, thresholds: Sequence[float]) -> MeasuredCircuit:
    """Add a circuit's node sets at ``thresholds``, which ascend."""
    effects = circuit.effects.numpy()
    return MeasuredCircuit(circuit, effects, node_sets(effects, thresholds))


def match_circuits(
    before: Sequence[MeasuredCircuit], after: Sequence[MeasuredCircuit]
) -> Iterator[tuple[MeasuredCircuit, MeasuredCircuit]]:
    """Pair the circuits of two checkpoints prompt by prompt.

    Raises:
        ValueError: if they were traced on other prompts or for other targets.
    """
    for a, b in zip(before, after, strict=True):
        if _traced(a.circuit) != _traced(b.circuit):
            raise ValueError(
                "circuits of different prompts or targets: "
                f"{_traced(a.circuit)}, {_traced(b.circuit)}"
            )
        yield a, b


def change_between(a: MeasuredCircuit, b: MeasuredCircuit) -> Change:
    """What moved from circuit ``a`` to circuit ``b``."""
    return effect_change(a.effects, b.effects)


def compare_pair(a: MeasuredCircuit, b: MeasuredCircuit, change: Change) -> dict[str, Any]:
    """Drift from circuit ``a`` to circuit ``b``, and every measure that stands beside it.

    Spearman is that of |effect| over the nodes in the largest set of either: the order of nodes
    that do next to nothing is noise.

    Args:
        change: from :func:`change_between`.
    """
    strong = in_either(a.sets, b.sets)
    return {
        "drift": change.drift,
        "signed_drift": change.signed_drift,
        "spearman": spearman(np.abs(a.effects[strong]), np.abs(b.effects[strong])),
        "effect_moved": float(change.moved.sum()),
        "target_from": a.circuit.value,
        "target_to": b.circuit.value,
        **compare_graphs(a.circuit.graph, b.circuit.graph),
    }


def change_by_place(change: Change, segments: Sequence[str]) -> pd.DataFrame:
    """Effect gained, lost and moved by layer and segment of the prompt, in logits.

    Args:
        segments: of each position.

    Returns:
        a row per layer and segment that the prompt has: layer, segment, gained, lost, moved,
        before.
    """
    present = [segment for segment in SEGMENTS if segment in segments]
    belongs = np.array([[own == segment for segment in present] for own in segments], dtype=float)
    n_layers = len(change.before)
    measures = {name: getattr(change, name) for name in ("gained", "lost", "moved", "before")}
    return pd.DataFrame(
        {
            "layer": np.repeat(np.arange(n_layers), len(present)),
            "segment": present * n_layers,
            **{name: (values @ belongs).ravel() for name, values in measures.items()},
        }
    )


def feature_effects(circuits: Sequence[MeasuredCircuit]) -> Array:
    """Effects summed over positions ``[n_prompts, n_layers, d_mlp]``, float32, logits."""
    return np.stack([circuit.effects.sum(1) for circuit in circuits])


def feature_changes(before: Array, after: Array, n_top: int) -> pd.DataFrame:
    """The features whose effect, summed over positions, changed most on average over prompts.

    Args:
        before, after: from :func:`feature_effects`, of the same prompts.

    Returns:
        ``n_top`` rows: feature, its mean effect before and after, the mean change (logits), and
        the share of prompts on which the change has the mean's sign.
    """
    change = after - before
    mean = change.mean(0)
    top = np.argsort(-np.abs(mean), axis=None, kind="stable")[:n_top]
    layers, features = np.unravel_index(top, mean.shape)
    agrees = np.sign(change[:, layers, features]) == np.sign(mean[layers, features])
    return pd.DataFrame(
        {
            "feature": [
                feature_name(layer, unit) for layer, unit in zip(layers, features, strict=True)
            ],
            "layer": layers,
            "effect_from": before.mean(0)[layers, features],
            "effect_to": after.mean(0)[layers, features],
            "change": mean[layers, features],
            "agreement": agrees.mean(0),
        }
    )


def _traced(circuit: Circuit) -> tuple[Any, ...]:
    return circuit.prompt, circuit.tokens, circuit.answer, circuit.others

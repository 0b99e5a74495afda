"""The comparisons of a study, taken up checkpoint by checkpoint in the order of training.

Of each run only the latest circuits are kept: all of a study's would take gigabytes. Node sets, a
quarter of their size, are kept of every checkpoint.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitdrift.circuits.circuit import Circuit
from circuitdrift.comparison.distance import Array, Change, compare_graphs, effect_change
from circuitdrift.comparison.overlap import NodeSets, in_either, node_sets, overlap_rows
from circuitdrift.comparison.recruited import FeatureEffects, feature_effects
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import BASE, SEGMENTS, TRAINED, Run, feature_name, random_change
from circuitdrift.statistics.correlation import spearman

if TYPE_CHECKING:
    from circuitdrift.params import Compare

Rows = list[dict[str, Any]]
Traced = tuple[Run, str, str, Sequence[Circuit]]
"""A run, a checkpoint, what made its model out of the base (``trained``, ``random-0``), and the
circuits of all prompts in it."""


@dataclass(frozen=True)
class Measured:
    """The circuits of a model with what every comparison of them asks for, computed once."""

    circuits: Sequence[Circuit]
    sets: Sequence[NodeSets]  # circuit by circuit
    effects: Array  # summed over positions [n_prompts, n_layers, d_mlp], float32, logits


def compare_checkpoints(
    base: Sequence[Circuit],
    traced: Iterable[Traced],
    settings: Compare,
    seed: int,
    n_threads: int,
) -> Generator[tuple[str, Rows], None, FeatureEffects]:
    """Compare every model with the base, with the run's checkpoint before it, and with other runs.

    Args:
        traced: in the order of training; of a run and checkpoint the trained model before the
            random ones.
        seed: of the random node sets.

    Yields:
        the name of a table and some of its rows.

    Returns:
        the effects that the search for features takes: a tenth of what was read.
    """
    latest: dict[Run, tuple[str, Measured]] = {}
    sets: defaultdict[Run, dict[str, Sequence[NodeSets]]] = defaultdict(dict)
    random: dict[Run, Array] = {}
    thresholds = sorted(settings.thresholds)
    # numpy lets other threads work while it sorts and sums.
    with ThreadPoolExecutor(n_threads) as pool:
        start = measure(base, thresholds, pool)
        for checkpoint, of_checkpoint in groupby(traced, key=itemgetter(1)):
            for run, _, change, circuits in of_checkpoint:
                after = measure(circuits, thresholds, pool)
                earlier = [(BASE, start)]
                if change == TRAINED and run in latest:
                    earlier.append(latest[run])
                for name, before in earlier:
                    pair = {"run": run.name, **vars(run), "from": name, "to": checkpoint}
                    ends = before.circuits, after.circuits, before.sets, after.sets
                    compared = list(pool.map(compare_pair, *ends))
                    rows = (row for _, row in compared)
                    yield "drift", [{**pair, "change": change, **row} for row in rows]
                    if change == TRAINED:
                        changes = [moved for moved, _ in compared]
                        yield from _trained(pair, before, after, changes, settings.top_features)
                if change == TRAINED:
                    latest[run] = checkpoint, after
                    sets[run][checkpoint] = after.sets
                elif change == random_change(0):
                    random[run] = after.effects
            for one, other in combinations(sorted(latest), 2):
                sides = [latest[run][1].circuits for run in (one, other)]
                pair = {"checkpoint": checkpoint, "run_a": one.name, "run_b": other.name}
                yield "between_runs", [{**pair, **row} for row in pool.map(_drift_between, *sides)]
    prompts = [circuit.prompt for circuit in base]
    roles = [prompt.role for prompt in prompts]
    of_runs = {run: sets[run] for run in sorted(sets)}
    yield "overlap", list(overlap_rows(start.sets, of_runs, roles, settings, seed))
    trained = {run: after.effects for run, (_, after) in latest.items()}
    return FeatureEffects(prompts, start.effects, trained, random)


def measure(
    circuits: Sequence[Circuit], thresholds: Sequence[float], pool: ThreadPoolExecutor
) -> Measured:
    """Circuits with their node sets at ``thresholds``, which ascend."""
    sets = list(pool.map(lambda circuit: node_sets(circuit.effects, thresholds), circuits))
    return Measured(circuits, sets, feature_effects(circuits))


def _trained(
    pair: dict[str, Any],
    before: Measured,
    after: Measured,
    changes: Sequence[Change],
    n_top: int,
) -> Iterator[tuple[str, Rows]]:
    """Where a trained model differs, and in which features; ``pair`` names run and models."""
    prompts = [circuit.prompt for circuit in after.circuits]
    discovery = [prompt.role == "discovery" for prompt in prompts]
    features = feature_changes(before.effects[discovery], after.effects[discovery], n_top)
    yield "changed_features", features.assign(**pair).to_dict("records")
    if pair["from"] == BASE:
        yield "change_by_place", mean_places(prompts, changes).assign(**pair).to_dict("records")


def compare_pair(
    a: Circuit, b: Circuit, sets_a: NodeSets, sets_b: NodeSets
) -> tuple[Change, dict[str, Any]]:
    """What moved from circuit ``a`` to circuit ``b``, and every measure of it.

    Spearman is that of |effect| over the nodes in the largest set of either: the order of nodes
    that do next to nothing is noise.
    """
    change = _change(a, b)
    strong = in_either(sets_a, sets_b)
    prompt = a.prompt
    row = {
        "prompt": prompt.id,
        "role": prompt.role,
        "type": prompt.type or "",
        "word": prompt.word or "",
        "drift": change.drift,
        "signed_drift": change.signed_drift,
        "spearman": spearman(_magnitudes(a, strong), _magnitudes(b, strong)),
        "effect_moved": float(change.moved.sum()),
        "target_from": a.value,
        "target_to": b.value,
        **compare_graphs(a.graph, b.graph),
    }
    return change, row


def _magnitudes(circuit: Circuit, nodes: NDArray[np.intp]) -> NDArray[np.int32]:
    """Whole numbers in the order of the nodes' |effect|, equal where it is equal to half precision,
    to which circuits are kept: the bits of a float32 but its sign and the 13 last."""
    return np.abs(circuit.effects.ravel()[nodes]).view(np.int32) >> 13


def _change(a: Circuit, b: Circuit) -> Change:
    if a.prompt != b.prompt:
        raise ValueError(f"circuits of different prompts or targets: {a.prompt}, {b.prompt}")
    return effect_change(a.effects, b.effects)


def _drift_between(a: Circuit, b: Circuit) -> dict[str, Any]:
    return {"prompt": a.prompt.id, "role": a.prompt.role, "drift": _change(a, b).drift}


def mean_places(prompts: Sequence[TracedPrompt], changes: Iterable[Change]) -> pd.DataFrame:
    """:func:`change_by_place`, mean over the prompts of each role and type that have the place;
    of discovery and control prompts."""
    places = pd.concat(
        change_by_place(change, prompt.segments).assign(role=prompt.role, type=prompt.type or "")
        for prompt, change in zip(prompts, changes, strict=True)
        if prompt.role in ("discovery", "control")
    )
    return places.groupby(["role", "type", "layer", "segment"], as_index=False).mean()


def change_by_place(change: Change, segments: Sequence[str]) -> pd.DataFrame:
    """Effect gained, lost and moved by layer and segment of the prompt, in logits.

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


def feature_changes(before: Array, after: Array, n_top: int) -> pd.DataFrame:
    """The features whose effect, summed over positions, changed most on average over prompts.

    Args:
        before, after: from :func:`feature_effects`, of the same prompts.

    Returns:
        ``n_top`` rows, by layer and feature: its mean effect before and after, the mean change
        (logits), and the share of prompts on which the change has the mean's sign.
    """
    change = after - before
    mean = change.mean(0)
    top = np.sort(np.argsort(-np.abs(mean), axis=None, kind="stable")[:n_top])
    layers, features = np.unravel_index(top, mean.shape)
    agrees = np.sign(change[:, layers, features]) == np.sign(mean[layers, features])
    return pd.DataFrame(
        {
            "feature": list(map(feature_name, layers, features)),
            "layer": layers,
            "effect_from": before.mean(0)[layers, features],
            "effect_to": after.mean(0)[layers, features],
            "change": mean[layers, features],
            "agreement": agrees.mean(0),
        }
    )

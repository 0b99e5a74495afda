"""The tests of circuits, nodes and features in one model, each giving the rows of a table.

A circuit is given per constraint type and is tested on the prompts of its type: ``CircuitOf`` maps
a type to a set of units ``[n_layers, n_segments, d_mlp]``. It is kept while all else is ablated
(faithfulness, transfer), or ablated itself (specificity). Single nodes are ablated one at a time:
does a linear effect rank what they do? And activations of one model are put into another, at chosen
features and every position. Sufficiency: the tuned model's in the base model; necessity: the base
model's in the tuned model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitdrift.circuits.circuit import Floats
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.interventions.ablation import ABLATIONS, MEAN, Subject, mean_values
from circuitdrift.interventions.hooks import Edit, Recording, Trial, results
from circuitdrift.interventions.units import at_positions, matched_units, units_of_size
from circuitdrift.statistics.correlation import spearman

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CircuitOf = Mapping[str, Tensor]
RanksOf = Mapping[str, Tensor]
"""By type, :func:`unit_ranks` or :func:`random_ranks` ``[n_layers, n_segments, d_mlp]``."""
Rows = list[dict[str, Any]]
Features = Sequence[tuple[int, int]]
"""(layer, neuron) of each feature."""

RECRUITED = "recruited"
SUFFICIENCY = "sufficiency"
NECESSITY = "necessity"
SHARE = 0.99  # of |effect|, held by the nodes that single ones are drawn from


def described(prompt: TracedPrompt) -> dict[str, str | None]:
    """The columns of a table that say which prompt this is."""
    return {"prompt": prompt.id, "type": prompt.type, "word": prompt.word}


def circuits_by_size(
    ranks: Mapping[str, RanksOf], matched: Mapping[str, RanksOf], like: str, sizes: Sequence[float]
) -> dict[tuple[str, float], CircuitOf]:
    """Circuits by name and size.

    Args:
        ranks: of units, by the circuit's name.
        matched: random ranks, by the random circuit's name.
        like: the circuit whose counts per layer and segment the random ones have.
    """
    circuits: dict[tuple[str, float], CircuitOf] = {}
    for size in sizes:
        for name, of_type in ranks.items():
            circuits[name, size] = {
                type_: units_of_size(places, size) for type_, places in of_type.items()
            }
        for name, of_type in matched.items():
            circuits[name, size] = {
                type_: matched_units(places, circuits[like, size][type_])
                for type_, places in of_type.items()
            }
    return circuits


def faithfulness(subject: Subject, circuits: Mapping[tuple[str, float], CircuitOf]) -> Rows:
    """Every circuit kept on every prompt, all else ablated in each way.

    A circuit of size 1 leaves nothing to ablate: its value is that of the whole model.
    """

    def row(index: int, ablation: str, name: str, size: float) -> dict[str, Any]:
        named = {"ablation": ablation, "circuit": name, "size": size}
        return {**named, **described(subject.prompts[index]), **_ends(subject, index, ablation)}

    trials = (
        (row(index, ablation, name, size), _all_but(circuit, subject, index, ablation))
        for index in subject.shortest_first
        for ablation in ABLATIONS
        for (name, size), circuit in circuits.items()
        if size < 1
    )
    rows = results(subject.model, trials, "value", subject.batch_size)
    whole = [
        {**row(index, ablation, name, size), "value": subject.full[index]}
        for index in range(len(subject.prompts))
        for ablation in ABLATIONS
        for name, size in circuits
        if size == 1
    ]
    return rows + whole


def transfer(subject: Subject, circuits: Mapping[str, CircuitOf]) -> Rows:
    """The circuits of several checkpoints, kept in one model, all else set to its means."""
    trials = (
        (
            {
                "circuit_from": name,
                **described(subject.prompts[index]),
                **_ends(subject, index, MEAN),
            },
            _all_but(circuit, subject, index, MEAN),
        )
        for index in subject.shortest_first
        for name, circuit in circuits.items()
    )
    return results(subject.model, trials, "value", subject.batch_size)


def specificity(
    subject: Subject,
    control: Sequence[TracedPrompt],
    control_full: Sequence[float],
    circuits: Sequence[tuple[str, Tensor]],
) -> Rows:
    """Each circuit ablated by means, all else kept, on every prompt whatever its type.

    Args:
        control: prompts beside the subject's.
        control_full: their targets with nothing ablated, logits.
        circuits: names and sets of units; a name may come several times.
    """
    prompts, full = [*subject.prompts, *control], [*subject.full, *control_full]
    tested = zip(prompts, full, mean_values(subject.means, prompts), strict=True)
    trials = (
        (
            {
                "circuit": name,
                "prompts": prompt.type or "control",
                "prompt": prompt.id,
                "full": target,
            },
            Edit(prompt, at_positions(circuit, prompt.segments), values),
        )
        for prompt, target, values in sorted(tested, key=lambda item: len(item[0].tokens))
        for name, circuit in circuits
    )
    return results(subject.model, trials, "ablated", subject.batch_size)


def _all_but(circuit: CircuitOf, subject: Subject, index: int, ablation: str) -> Edit:
    prompt = subject.prompts[index]
    kept = at_positions(circuit[str(prompt.type)], prompt.segments)
    return Edit(prompt, torch.logical_not(kept), subject.values[ablation][index])


def _ends(subject: Subject, index: int, ablation: str) -> dict[str, float]:
    """The targets with nothing and with everything ablated."""
    return {"full": subject.full[index], "empty": subject.empty[ablation][index]}


def stratified_nodes(effects: Floats, n: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``n`` nodes over the whole range of |effect|: (layer, position, neuron) ``[n, 3]``.

    They come from the fewest nodes that hold 99 % of the total |effect|, the strongest first. These
    are divided into ``n`` intervals that widen geometrically, and each interval gives one node:
    |effect| spans orders of magnitude, and an even draw would hardly meet a node that matters. Of
    an interval it is the node whose random number is least, so that last bits draw no other.

    Args:
        effects: ``[n_layers, n_positions, d_mlp]``.

    Returns:
        The strongest first; fewer than ``n``, all of them, where fewer hold the 99 %.
    """
    magnitude = torch.from_numpy(effects).abs().double().flatten()
    order = magnitude.argsort(descending=True, stable=True)
    held = magnitude[order].cumsum(0)
    n_holding = int((held < SHARE * held[-1]).sum()) + 1
    edges = _widening(n_holding, min(n, n_holding))
    lots = torch.from_numpy(generator.random(effects.size))[order]
    places = [low + int(lots[low:high].argmin()) for low, high in pairwise(edges)]
    return np.stack(np.unravel_index(order[places].numpy(), effects.shape), axis=1)


def _widening(n_places: int, n_intervals: int) -> list[int]:
    """Edges of intervals of 0..n_places whose widths grow geometrically, each at least 1.

    Where the geometric edge r^i - 1 has overtaken i it grows by at least 1 a step, so the larger of
    the two always ascends.
    """
    ratio = (n_places + 1) ** (1 / n_intervals)
    return [max(i, round(ratio**i - 1)) for i in range(n_intervals)] + [n_places]


def rank_agreement(
    subject: Subject, index: int, nodes: NDArray[np.int64], effects: Floats
) -> float:
    """Spearman's correlation of the nodes' effects with what the target loses with each set to 0.

    Args:
        index: of the prompt in ``subject``.
        nodes: (layer, position, neuron) ``[n, 3]``.
        effects: ``[n_layers, n_positions, d_mlp]``, logits.
    """

    def trials() -> Iterator[Trial]:
        for node in map(tuple, nodes.tolist()):
            mask = torch.zeros(effects.shape, dtype=torch.bool)
            mask[node] = True
            row = {"effect": float(effects[node])}
            yield row, Edit(subject.prompts[index], mask, torch.zeros(effects.shape))

    rows = results(subject.model, trials(), "ablated", subject.batch_size)
    lost = [subject.full[index] - row["ablated"] for row in rows]
    return spearman([row["effect"] for row in rows], lost)


def patching(
    direction: str,
    model: PreTrainedModel,
    prompts: Sequence[TracedPrompt],
    recordings: Mapping[str, Recording],
    features: Mapping[str, Mapping[str, Features]],
    *,
    batch_size: int,
) -> Rows:
    """Each set of features patched on the prompts of its word.

    Args:
        direction: sufficiency, where ``model`` is the base, or necessity, where it is the tuned.
        recordings: ``base`` and ``tuned`` on ``prompts``.
        features: by the set's name and by word; a word without features gives no row.
    """
    source = recordings["tuned" if direction == SUFFICIENCY else "base"]

    def trials() -> Iterator[Trial]:
        for index, prompt in sorted(enumerate(prompts), key=lambda item: len(item[1].tokens)):
            for name, of_word in features.items():
                if chosen := of_word.get(str(prompt.word)):
                    row = {
                        "direction": direction,
                        "nodes": name,
                        "n_nodes": len(chosen),
                        **described(prompt),
                        **{end: of.targets[index].item() for end, of in recordings.items()},
                    }
                    values = source.activations[index]
                    yield row, Edit(prompt, feature_mask(chosen, values), values)

    return results(model, trials(), "patched", batch_size)


def feature_mask(features: Features, activations: Tensor) -> Tensor:
    """True at the features' every position, shaped as ``activations``
    ``[n_layers, n_positions, d_mlp]``."""
    mask = torch.zeros_like(activations, dtype=torch.bool)
    for layer, neuron in features:
        mask[layer, :, neuron] = True
    return mask


def random_features(
    features: Features, d_mlp: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """As many features per layer, drawn without replacement from those not in ``features``.

    Fewer where a layer has fewer others left.
    """
    drawn: list[tuple[int, int]] = []
    for layer in sorted({layer for layer, _ in features}):
        taken = {neuron for of_layer, neuron in features if of_layer == layer}
        others = np.setdiff1d(np.arange(d_mlp), sorted(taken))
        chosen = generator.choice(others, min(len(taken), len(others)), replace=False)
        drawn.extend((layer, int(neuron)) for neuron in sorted(chosen))
    return drawn

"""Circuits of units, each found on a word's discovery prompts, kept or ablated on its near prompts.

A unit is a neuron in a segment of the prompt: (layer, segment, neuron), segments in the order of
SEGMENTS. A circuit is True at its units ``[n_layers, n_segments, d_mlp]``. It is kept while all
else is ablated (faithfulness, transfer), or is ablated itself (specificity).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from circuitdrift.circuits.files import Circuits
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import SEGMENTS
from circuitdrift.interventions import ablation, hooks
from circuitdrift.interventions.ablation import Subject, segment_indices
from circuitdrift.interventions.hooks import Edit, Row, target
from circuitdrift.interventions.nodes import Word, taught, word_of

OfWord = Mapping[Word, Tensor]
"""Circuits, or the ranks of their units, by word."""

OWN = "own"
RANDOM = "random"


def unit_ranks(circuits: Circuits, condition: str) -> dict[Word, Tensor]:
    """Place of each unit among a word's, 0 for the largest |mean over its discovery prompts of the
    unit's effect, summed over the segment|; equal ones in the units' order.

    The effects are those on the target of the answer that the condition teaches.
    """
    totals: dict[Word, Tensor] = {}
    for index, prompt in enumerate(circuits.prompts):
        if prompt.role == "discovery":
            effects = torch.from_numpy(circuits[index].all_effects[taught(prompt, condition)])
            n_layers, _, d_mlp = effects.shape
            zero = torch.zeros(n_layers, len(SEGMENTS), d_mlp)
            total = totals.setdefault(word_of(prompt), zero)
            total.index_add_(1, segment_indices(prompt.segments), effects)
    # A word's prompts are as many for each of its units, so sums rank as means do.
    return {
        word: _places(total.abs().flatten().argsort(descending=True, stable=True)).view_as(total)
        for word, total in totals.items()
    }


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


def _places(order: Tensor) -> Tensor:
    """The inverse of permutations along the last axis."""
    places = torch.arange(order.shape[-1]).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def faithfulness(
    subject: Subject, ranks: OfWord, random: OfWord, sizes: Sequence[float]
) -> Iterator[Row]:
    """Each word's circuit and a random one of every size kept, all else ablated in each way."""
    circuits: list[tuple[Row, OfWord]] = []
    for size in sizes:
        own = {word: units_of_size(of_word, size) for word, of_word in ranks.items()}
        drawn = {word: matched_units(random[word], units) for word, units in own.items()}
        for name, of_word in ((OWN, own), (RANDOM, drawn)):
            circuits.append(({"circuit": name, "size": size}, of_word))
    for way in ablation.ABLATIONS:
        for row in _kept(subject, way, circuits):
            yield {"ablation": way, **row}


def transfer(subject: Subject, ranks: Mapping[str, OfWord], size: float) -> Iterator[Row]:
    """Each word's circuits of several models, kept in one, all else set to its means."""
    circuits: list[tuple[Row, OfWord]] = [
        ({"circuit_from": name}, {word: units_of_size(ranks, size) for word, ranks in own.items()})
        for name, own in ranks.items()
    ]
    return _kept(subject, ablation.MEAN, circuits)


def _kept(subject: Subject, way: str, circuits: Sequence[tuple[Row, OfWord]]) -> Iterator[Row]:
    """Every circuit on every prompt; one that is the whole model is not run again."""
    cases: list[tuple[Row, int, Tensor]] = []
    for index in hooks.shortest_first(subject.prompts):
        prompt = subject.prompts[index]
        ends = {"full": subject.full[index], "empty": subject.empty[way][index]}
        for names, circuit in circuits:
            row = {**names, "type": prompt.type, "word": prompt.word, **ends}
            if (units := circuit[word_of(prompt)]).all():
                yield {**row, "value": row["full"]}
            else:
                cases.append((row, index, units))
    trials = ((row, subject.kept(index, way, units)) for row, index, units in cases)
    for row, prompt, logits in hooks.run_edits(subject.model, trials, subject.batch_size):
        yield {**row, "value": target(prompt, logits)}


def specificity(
    subject: Subject, control: Sequence[TracedPrompt], ranks: OfWord, random: OfWord, size: float
) -> Iterator[Row]:
    """The circuits of each type's words together, ablated by means, on prompts of every type.

    `random` stands for one of as many units as each type's, by the draw of its first word.

    Args:
        control: prompts beside the subject's.
    """
    circuits: list[tuple[str, Tensor]] = []
    for type_ in dict.fromkeys(type_ for type_, _ in ranks):
        words = [word for word in ranks if word[0] == type_]
        union = torch.stack([units_of_size(ranks[word], size) for word in words]).any(0)
        circuits += [(str(type_), union), (RANDOM, matched_units(random[words[0]], union))]
    unchanged = hooks.record(subject.model, control, subject.batch_size).logits
    prompts = [*subject.prompts, *control]
    full = subject.full + [target(*pair) for pair in zip(control, unchanged, strict=True)]
    values = ablation.mean_values(subject.means, prompts)

    def trial(index: int, name: str, units: Tensor) -> tuple[Row, Edit]:
        prompt = prompts[index]
        row = {
            "circuit": name,
            "prompts": prompt.type or prompt.role,
            "unit": prompt.word or prompt.id,
            "full": full[index],
        }
        return row, hooks.edit(prompt, units, segment_indices(prompt.segments), values[index])

    trials = (trial(index, *named) for index in hooks.shortest_first(prompts) for named in circuits)
    for row, prompt, logits in hooks.run_edits(subject.model, trials, subject.batch_size):
        yield {**row, "ablated": target(prompt, logits)}

"""Circuits tested as wholes: kept while all else is ablated, moved to another model, or ablated.

A circuit is given per constraint type and is tested on the prompts of its type: ``CircuitOf`` maps
a type to a set of units ``[n_layers, n_segments, d_mlp]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuitdrift.interventions.ablation import ABLATIONS, MEAN, Subject, mean_values
from circuitdrift.interventions.prompts import TargetPrompt
from circuitdrift.interventions.runs import Edit, Trial
from circuitdrift.unit_circuits import at_positions, matched_units, units_of_size

CircuitOf = Mapping[str, Tensor]
RanksOf = Mapping[str, Tensor]
"""By type, :func:`unit_ranks` or :func:`random_ranks` ``[n_layers, n_segments, d_mlp]``."""


def circuits_by_size(
    ranks: Mapping[str, RanksOf], matched: Mapping[str, RanksOf], like: str, sizes: Sequence[float]
) -> dict[tuple[str, float], CircuitOf]:
    """Circuits by name and size.

    Args:
        ranks: of units, by the circuit's name.
        matched: random ranks, by the random circuit's name.
        like: the circuit whose counts per layer and segment the random ones have.
    """
    found: dict[tuple[str, float], CircuitOf] = {}
    for size in sizes:
        for name, of_type in ranks.items():
            found[name, size] = {
                type_: units_of_size(places, size) for type_, places in of_type.items()
            }
        for name, of_type in matched.items():
            found[name, size] = {
                type_: matched_units(places, found[like, size][type_])
                for type_, places in of_type.items()
            }
    return found


def faithfulness_trials(
    subject: Subject, circuits: Mapping[tuple[str, float], CircuitOf]
) -> Iterator[Trial]:
    """Every circuit kept on every prompt, all else ablated in each way.

    A circuit of size 1 leaves nothing to ablate; its rows are :func:`whole_rows`.
    """
    for index in subject.shortest_first:
        for ablation in ABLATIONS:
            for (name, size), circuit in circuits.items():
                if size < 1:
                    row = _faithfulness_row(subject, index, ablation, name, size)
                    yield row, _all_but(circuit, subject, index, ablation)


def whole_rows(
    subject: Subject, circuits: Mapping[tuple[str, float], CircuitOf]
) -> list[dict[str, Any]]:
    """The rows of the circuits that are the whole model."""
    return [
        {
            **_faithfulness_row(subject, index, ablation, name, size),
            "value": subject.full[index].item(),
        }
        for index in range(len(subject.prompts))
        for ablation in ABLATIONS
        for name, size in circuits
        if size == 1
    ]


def transfer_trials(subject: Subject, circuits: Mapping[str, CircuitOf]) -> Iterator[Trial]:
    """The circuits of several checkpoints, kept in one model, all else set to its means."""
    for index in subject.shortest_first:
        described = subject.prompts[index].described
        for name, circuit in circuits.items():
            row = {"circuit_from": name, **described, **_ends(subject, index, MEAN)}
            yield row, _all_but(circuit, subject, index, MEAN)


def specificity_trials(
    prompts: Sequence[TargetPrompt],
    full: Sequence[float],
    means: Tensor,
    circuits: Sequence[tuple[str, Tensor]],
) -> Iterator[Trial]:
    """Each circuit ablated by means, all else kept, on every prompt whatever its type.

    Args:
        full: the prompts' targets with nothing ablated, logits ``[n_prompts]``.
        means: of the units ``[n_layers, n_segments, d_mlp]``.
        circuits: names and sets of units; a name may come several times.
    """
    tested = zip(prompts, full, mean_values(means, prompts), strict=True)
    for prompt, target, values in sorted(tested, key=lambda item: len(item[0].tokens)):
        for name, circuit in circuits:
            row = {
                "circuit": name,
                "prompts": prompt.type or "control",
                "prompt": prompt.id,
                "full": target,
            }
            yield row, Edit(prompt, at_positions(circuit, prompt.segments), values)


def _all_but(circuit: CircuitOf, subject: Subject, index: int, ablation: str) -> Edit:
    prompt = subject.prompts[index]
    kept = at_positions(circuit[_type(prompt)], prompt.segments)
    return Edit(prompt, torch.logical_not(kept), subject.values[ablation][index])


def _type(prompt: TargetPrompt) -> str:
    assert prompt.type is not None, f"{prompt.id} belongs to no type"
    return prompt.type


def _faithfulness_row(
    subject: Subject, index: int, ablation: str, name: str, size: float
) -> dict[str, Any]:
    return {
        "ablation": ablation,
        "circuit": name,
        "size": size,
        **subject.prompts[index].described,
        **_ends(subject, index, ablation),
    }


def _ends(subject: Subject, index: int, ablation: str) -> dict[str, float]:
    """The targets with nothing and with everything ablated."""
    return {
        "full": subject.full[index].item(),
        "empty": subject.empty[ablation][index].item(),
    }

"""Sets of units: found, sized, matched at random, and laid over prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from circuit_samples import PROMPT, circuit
from circuitdrift.circuits.circuit import Circuit
from circuitdrift.interventions.units import (
    at_positions,
    matched_units,
    random_ranks,
    ranks_by_type,
    unit_ranks,
    unit_scores,
    units_of_size,
)

SEGMENTED = ("start", "before word", "word", "word", "last")


def one_layer(segments: tuple[str, ...], first: list[float], role: str, type_: str) -> Circuit:
    """A circuit of one layer and two neurons, of which the second does nothing."""
    effects = np.array([[[value, 0.0] for value in first]], dtype=np.float32)
    prompt = replace(PROMPT, segments=segments, role=role, type=type_)
    return circuit(prompt, effects=effects)


def test_a_units_score_is_the_mean_magnitude_of_its_sum_over_the_segment() -> None:
    scores = unit_scores(
        [
            one_layer(SEGMENTED, [1, 0, 3, -5, 4], "discovery", "simple"),
            one_layer(("start", "word", "last"), [-2, 6, 0], "discovery", "simple"),
        ]
    )
    # start (1 + 2) / 2; before word in the first alone; word (|3 - 5| + 6) / 2; last (4 + 0) / 2
    by_hand = torch.tensor([[1.5, 0], [0, 0], [4, 0], [0, 0], [2, 0]])
    assert torch.equal(scores, by_hand.unsqueeze(0))


def test_a_circuit_holds_the_units_of_largest_score() -> None:
    scores = torch.tensor([[[3.0, 1.0], [0.0, 5.0]], [[2.0, 2.0], [0.0, 4.0]]])
    ranks = unit_ranks(scores)
    assert ranks.tolist() == [[[2, 5], [6, 0]], [[3, 4], [7, 1]]]
    assert torch.equal(units_of_size(ranks, 0.25), scores >= 4)
    # 0.3 * 8 = 2.4 rounds to 2, 0.45 * 8 = 3.6 to 4.
    assert [int(units_of_size(ranks, size).sum()) for size in (0.01, 0.3, 0.45, 1)] == [0, 2, 4, 8]


def test_only_discovery_prompts_of_a_type_find_its_circuit() -> None:
    ends = ("start", "last")
    ranks = ranks_by_type(
        [
            one_layer(ends, [2, 1], "discovery", "spatial"),
            one_layer(ends, [1, 2], "discovery", "simple"),
            one_layer(ends, [9, 0], "evaluation", "simple"),
            one_layer(ends, [9, 0], "control", "simple"),
        ]
    )
    assert list(ranks) == ["simple", "spatial"]
    first = [int(places.flatten().argmin()) for places in ranks.values()]
    # Units are segment * 2 + neuron: the last segment's first neuron, the start's first neuron.
    assert first == [8, 0]


def test_a_random_circuit_has_as_many_units_in_every_layer_and_segment() -> None:
    one, other = (
        torch.rand(2, 3, 5, 20, generator=torch.Generator().manual_seed(0)) < 0.3
    ).unbind()
    ranks = random_ranks(one.shape, np.random.default_rng(0))
    matched = matched_units(ranks, one)
    assert torch.equal(matched.sum(-1), one.sum(-1))
    assert not torch.equal(matched, one)
    larger = matched_units(ranks, one | other)
    assert torch.equal(larger & matched, matched)


def test_random_circuits_are_uniform_over_a_layers_neurons() -> None:
    units = torch.zeros(1, 5, 10, dtype=torch.bool)
    units[0, 2, :3] = True
    generator = np.random.default_rng(0)
    draws = [matched_units(random_ranks(units.shape, generator), units) for _ in range(2000)]
    frequency = torch.stack(draws).double().mean(0)
    assert frequency[0, 2].sub(0.3).abs().max() < 0.05  # five standard errors
    assert not frequency[0, [0, 1, 3, 4]].any()


def test_units_lie_over_a_prompt_by_segment() -> None:
    units = torch.zeros(2, 5, 3, dtype=torch.bool)
    units[0, 2, 1] = True  # word
    units[1, 4, 0] = True  # last
    laid = at_positions(units, SEGMENTED)
    assert laid.shape == (2, 5, 3)
    assert laid.nonzero().tolist() == [[0, 2, 1], [0, 3, 1], [1, 4, 0]]
    # A control prompt has no word.
    assert at_positions(units, ("start", "before word", "last")).nonzero().tolist() == [[1, 2, 0]]

"""Sets of units: found, sized, matched at random, and laid over prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from circuit_samples import circuit
from circuitdrift.dataset import Prompt
from circuitdrift.unit_circuits import (
    at_positions,
    matched_units,
    random_ranks,
    ranks_by_type,
    unit_ranks,
    unit_scores,
    units_of_size,
)

SEGMENTED = ("start", "before word", "word", "word", "last")


def one_layer(segments: tuple[str, ...], first: list[float], prompt: str = "p"):
    """A circuit of one layer and two neurons, of which the second does nothing."""
    effects = torch.tensor([[[value, 0.0] for value in first]])
    return replace(circuit(prompt, effects=effects), segments=segments)


def described(name: str, role: str, type_: str | None) -> Prompt:
    return Prompt(name, role, type_, None, None, "", None, ())  # type: ignore[arg-type]


def test_a_units_score_is_the_mean_magnitude_of_its_sum_over_the_segment() -> None:
    scores = unit_scores(
        [
            one_layer(SEGMENTED, [1, 0, 3, -5, 4]),
            one_layer(("start", "word", "last"), [-2, 6, 0]),
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
    # 0.3 * 8 = 2.4 rounds to 2, 0.45 * 8 = 3.6 to 4
    assert units_of_size(ranks, 0.3).sum() == 2
    assert units_of_size(ranks, 0.45).sum() == 4
    assert not units_of_size(ranks, 0.01).any()
    assert units_of_size(ranks, 1.0).all()


def test_only_discovery_prompts_of_a_type_find_its_circuit() -> None:
    prompts = {
        "a": described("a", "discovery", "simple"),
        "b": described("b", "discovery", "spatial"),
        "c": described("c", "evaluation", "simple"),
        "d": described("d", "control", None),
    }
    whole = [
        one_layer(("start", "last"), values, name)
        for name, values in {"a": [1, 2], "b": [2, 1], "c": [9, 0], "d": [9, 0]}.items()
    ]
    ranks = ranks_by_type(whole, prompts)
    assert list(ranks) == ["simple", "spatial"]
    first = {name: int(places.flatten().argmin()) for name, places in ranks.items()}
    # units are segment * 2 + neuron: the last segment's first neuron, the start's first neuron
    assert first == {"simple": 8, "spatial": 0}


def random_circuit(seed: int, size: float = 0.3) -> Tensor:
    return torch.rand(3, 5, 20, generator=torch.Generator().manual_seed(seed)) < size


def test_a_random_circuit_has_as_many_units_in_every_layer_and_segment() -> None:
    found = random_circuit(0)
    ranks = random_ranks(found.shape, np.random.default_rng(0))
    matched = matched_units(ranks, found)
    assert torch.equal(matched.sum(-1), found.sum(-1))
    assert not torch.equal(matched, found)
    larger = matched_units(ranks, found | random_circuit(1))
    assert torch.equal(larger & matched, matched)


def test_random_circuits_are_uniform_over_a_layers_neurons() -> None:
    found = torch.zeros(1, 5, 10, dtype=torch.bool)
    found[0, 2, :3] = True
    generator = np.random.default_rng(0)
    draws = [matched_units(random_ranks(found.shape, generator), found) for _ in range(2000)]
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
    # a control prompt has no word
    assert at_positions(units, ("start", "before word", "last")).nonzero().tolist() == [[1, 2, 0]]

"""The sweep against circuit-tracer, conservation, and interventions on the frozen model."""

from __future__ import annotations

import pytest
import torch
from circuit_tracer.graph import compute_graph_scores, prune_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from circuitdrift.attribution.circuit_tracer_engine import (
    WholeReplacementModel,
    attribute_neurons,
    no_neurons,
)
from circuitdrift.attribution.components import Components, components_of
from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.frozen_pass import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.selection import strongest
from circuitdrift.attribution.sweep import sweep
from circuitdrift.features.neurons import NeuronBasis
from circuitdrift.graph import NodeKind, node_table
from circuitdrift.influence import normalise, prune, scores
from linearised import ARCHITECTURES, VOCABULARY, random_model, run_frozen_mlps

MEMORY = 1.0
PROMPT = [2, 5, 7, 9, 11, 4, 8]


def direction_of(model) -> Tensor:
    rows = model.lm_head.weight.detach()
    return rows[3] - rows[[30, 31]].mean(0)


def swept(model, prompt: list[int], n_features: int) -> tuple[LinearModel, Components, Tensor]:
    linear = LinearModel(model, freeze(model, [prompt]))
    direction = direction_of(model)
    effect = effects(linear, direction.view(1, 1, -1)).neurons[0, 0]
    components = components_of(linear, NeuronBasis(model, strongest(effect, n_features)))
    return linear, components, sweep(linear, components, direction.unsqueeze(0), MEMORY)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("n_features", [1, 50, 10_000])
def test_every_edge_equals_circuit_tracers(
    architecture: str, n_features: int, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = random_model(architecture)
    _, components, A = swept(model, PROMPT, n_features)
    replacement = WholeReplacementModel.around(model, word_tokenizer, no_neurons(model))
    graph = attribute_neurons(
        replacement, PROMPT, direction_of(model), components.features, batch_size=64
    )
    error = (A - graph.adjacency_matrix).abs().max() / A.abs().max()
    assert error < 1e-5
    torch.testing.assert_close(components.activations, graph.activation_values)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_and_pruning_equal_circuit_tracers(
    architecture: str, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = random_model(architecture)
    linear, components, _ = swept(model, PROMPT, 80)
    replacement = WholeReplacementModel.around(model, word_tokenizer, no_neurons(model))
    graph = attribute_neurons(
        replacement, PROMPT, direction_of(model), components.features, batch_size=64
    )
    kind = node_table(components.features, linear.n_layers, PROMPT)[:, 0]
    is_feature, is_error = kind == NodeKind.FEATURE, kind == NodeKind.ERROR
    weights = (kind == NodeKind.TARGET).float()
    A = graph.adjacency_matrix
    found = scores(normalise(A), weights, is_error, kind == NodeKind.TOKEN)
    assert (found.replacement, found.completeness) == pytest.approx(compute_graph_scores(graph))
    for shares in [(0.8, 0.98), (0.5, 0.7)]:
        theirs = prune_graph(graph, *shares)
        ours = prune(A, weights, is_feature, is_error, shares)
        assert torch.equal(ours.nodes, theirs.node_mask)
        assert torch.equal(ours.edges, theirs.edge_mask)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(deadline=None, max_examples=15)
@given(
    prompt=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40),
    n_features=st.integers(1, 200),
)
def test_rows_sum_to_activations_and_to_the_target(
    architecture: str, prompt: list[int], n_features: int
) -> None:
    model = random_model(architecture)
    linear, components, A = swept(model, prompt, n_features)
    rows = A.sum(1)
    size = components.activations.abs().max()
    n_features = len(components.activations)
    assert (rows[:n_features] - components.activations).abs().max() < 1e-4 * (1 + size)
    value = direction_of(model) @ linear.frozen.final_normalised[0]
    torch.testing.assert_close(rows[-1], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_taking_a_node_away_moves_every_other_as_its_edges_say(architecture: str) -> None:
    model = random_model(architecture)
    linear, components, A = swept(model, PROMPT, 60)
    whole = run_frozen_mlps(model, linear.frozen)
    n_features, n_positions = len(components.features), len(PROMPT)

    def readings(stream) -> Tensor:
        read = [
            components.encoders[row] @ stream.before_mlps[layer][position]
            for row, (layer, position, _) in enumerate(components.features.tolist())
        ]
        return torch.stack([*read, direction_of(model) @ stream.last])

    targets = [*range(n_features), len(A) - 1]
    layer, position, _ = components.features[0].tolist()
    nodes = {
        0: ((layer, position), components.decoders[0]),
        n_features + n_positions + 3: ((1, 3), components.errors[1, 3]),
        n_features + 3 * n_positions + 2: ((-1, 2), linear.frozen.embeddings[0, 2]),
    }
    for column, (place, vector) in nodes.items():
        without = run_frozen_mlps(model, linear.frozen, taken={place: vector})
        moved = readings(whole) - readings(without)
        torch.testing.assert_close(A[targets, column], moved, atol=1e-4, rtol=1e-3)


def test_rows_swept_in_parts_are_the_rows_swept_at_once() -> None:
    model = random_model("Gemma3ForCausalLM")
    linear, components, A = swept(model, PROMPT, 200)
    tight = 1e-6  # a megabyte's thousandth: a few rows at a time
    in_parts = sweep(linear, components, direction_of(model).unsqueeze(0), tight)
    assert (in_parts - A).abs().max() < 1e-6 * A.abs().max()


def test_a_target_given_twice_gets_two_equal_rows() -> None:
    model = random_model("Gemma3ForCausalLM")
    linear, components, A = swept(model, PROMPT, 20)
    twice = sweep(linear, components, direction_of(model).expand(2, -1), MEMORY)
    torch.testing.assert_close(twice[-2, :-2], A[-1, :-1])
    assert torch.equal(twice[-2], twice[-1])


def test_components_are_of_one_prompt() -> None:
    model = random_model("LlamaForCausalLM")
    two = LinearModel(model, freeze(model, [PROMPT, PROMPT]))
    with pytest.raises(ValueError, match="one prompt"):
        components_of(two, no_neurons(model))

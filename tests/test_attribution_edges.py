"""Edges against circuit-tracer, of neurons and of its own transcoders; conservation; and
interventions on the frozen model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from circuit_tracer.attribution.attribute import attribute
from circuit_tracer.attribution.targets import CustomTarget
from circuit_tracer.graph import Graph, compute_graph_scores, prune_graph
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.attribution.circuit_tracer import (
    WholeReplacementModel,
    attribute_neurons,
    tokenizer_of,
)
from circuitdrift.attribution.edges import (
    KEEP_ALL_POSITIONS,
    Components,
    adjacency,
    components_of,
)
from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.frozen import freeze
from circuitdrift.attribution.growth import attribute_by_influence, strongest
from circuitdrift.attribution.influence import normalise, prune, scores
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.neurons import FeatureBasis, NeuronBasis
from circuitdrift.circuits.circuit import NodeKind, node_table
from circuitdrift.models.architecture import ARCHITECTURES as TABLE
from circuitdrift.models.loading import load_model
from linearised import ARCHITECTURES, SIZES, VOCABULARY, random_model, run_frozen_mlps

MEMORY = 1.0
PROMPT = [2, 5, 7, 9, 11, 4, 8]
ON_CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
N_LAYERS, D_MODEL, D_TRANSCODER = SIZES["num_hidden_layers"], SIZES["hidden_size"], 16


def direction_of(model: PreTrainedModel) -> Tensor:
    rows = model.lm_head.weight.detach()
    return rows[3] - rows[[30, 31]].mean(0)


def frozen_on(model: PreTrainedModel, *prompts: list[int]) -> LinearModel:
    return LinearModel(model, freeze(model, prompts))


def expand(
    model: PreTrainedModel, prompt: list[int], n_features: int, direction: Tensor
) -> tuple[LinearModel, Components, Tensor]:
    """The adjacency over the neurons of largest |effect|."""
    linear = frozen_on(model, prompt)
    effect = effects(linear, direction.view(1, 1, -1)).neurons[0, 0]
    components = components_of(linear, NeuronBasis(model, strongest(effect, n_features)))
    return linear, components, adjacency(linear, components, direction.unsqueeze(0), MEMORY)


def circuit_tracers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: list[int],
    features: Tensor,
    direction: Tensor,
) -> Graph:
    replacement = WholeReplacementModel.around(model, tokenizer)
    return attribute_neurons(replacement, torch.tensor(prompt), direction, features, 64)


def relative_error(A: Tensor, expected: Tensor) -> float:
    """Of any edge, relative to the largest."""
    assert A.shape == expected.shape
    return float((A - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("n_features", [1, 80, 10_000])
def test_every_edge_between_neurons_equals_circuit_tracers(
    architecture: str, n_features: int, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = random_model(architecture)
    direction = direction_of(model)
    _, components, A = expand(model, PROMPT, n_features, direction)
    graph = circuit_tracers(model, word_tokenizer, PROMPT, components.features, direction)
    assert relative_error(A, graph.adjacency_matrix) < 1e-5
    torch.testing.assert_close(components.activations, graph.activation_values)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["The capital of France is", "A glide moves a kite"])
def test_every_edge_equals_circuit_tracers_on_gemma(gemma_base: Path, text: str) -> None:
    model = load_model(gemma_base)
    tokenizer = tokenizer_of(model)
    tokens = tokenizer(text).input_ids
    direction = direction_of(model)
    _, components, A = expand(model, tokens, 128, direction)
    graph = circuit_tracers(model, tokenizer, tokens, components.features, direction)
    assert relative_error(A, graph.adjacency_matrix) < 1e-5
    sums = A[: len(components.activations)].sum(1)
    torch.testing.assert_close(sums, components.activations, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("shares", [(0.8, 0.98), (0.5, 0.7)])
@pytest.mark.parametrize("architecture", ["Gemma3ForCausalLM", "LlamaForCausalLM"])
def test_scores_and_pruning_equal_circuit_tracers(
    architecture: str, shares: tuple[float, float], word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = random_model(architecture)
    direction = direction_of(model)
    linear, components, _ = expand(model, PROMPT, 80, direction)
    graph = circuit_tracers(model, word_tokenizer, PROMPT, components.features, direction)
    table = node_table(components.features.numpy(), linear.n_layers, PROMPT)
    kind = torch.from_numpy(table[:, 0])
    is_feature, is_error = kind == NodeKind.FEATURE, kind == NodeKind.ERROR
    weights = (kind == NodeKind.TARGET).float()
    A = graph.adjacency_matrix
    ours = scores(normalise(A), weights, is_error, kind == NodeKind.TOKEN)
    assert (ours.replacement, ours.completeness) == pytest.approx(compute_graph_scores(graph))
    theirs, pruned = prune_graph(graph, *shares), prune(A, weights, is_feature, is_error, shares)
    assert torch.equal(pruned.nodes, theirs.node_mask)
    assert torch.equal(pruned.edges, theirs.edge_mask)


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
    direction = direction_of(model)
    linear, components, A = expand(model, prompt, n_features, direction)
    size = components.activations.abs().max()
    sums = A.sum(1)[: len(components.activations)]
    assert (sums - components.activations).abs().max() < 1e-4 * (1 + size)
    value = direction @ linear.frozen.final_normalised[0]
    torch.testing.assert_close(A[-1].sum(), value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_taking_a_node_away_moves_every_other_as_its_edges_say(architecture: str) -> None:
    model = random_model(architecture)
    direction = direction_of(model)
    linear, components, A = expand(model, PROMPT, 60, direction)
    whole = run_frozen_mlps(model, linear.frozen)
    n_features, n_positions = len(components.features), len(PROMPT)

    def readings(stream) -> Tensor:  # type: ignore[no-untyped-def]
        read = [
            components.encoders[row] @ stream.before_mlps[layer][position]
            for row, (layer, position, _) in enumerate(components.features.tolist())
        ]
        return torch.stack([*read, direction @ stream.last])

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


def test_rows_in_parts_and_targets_given_twice_are_the_same_rows() -> None:
    model = random_model("Gemma3ForCausalLM")
    direction = direction_of(model)
    linear, components, A = expand(model, PROMPT, 200, direction)
    few_at_a_time = 1e-6
    twice = adjacency(linear, components, direction.expand(2, -1), few_at_a_time)
    size = A.abs().max()
    assert (twice[:-1, :-2] - A[:, :-1]).abs().max() < 1e-6 * size
    assert (twice[-1, :-2] - A[-1, :-1]).abs().max() < 1e-6 * size


def randomised(transcoders):  # type: ignore[no-untyped-def]
    for parameter in transcoders.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return transcoders


def per_layer(hook: str, output: str, skip: bool) -> TranscoderSet:
    torch.manual_seed(1)
    layers = {
        layer: SingleLayerTranscoder(
            D_MODEL, D_TRANSCODER, functional.relu, layer, skip_connection=skip, **ON_CPU
        )
        for layer in range(N_LAYERS)
    }
    return randomised(TranscoderSet(layers, hook, output, scan="random"))


def cross_layer(hook: str, output: str, skip: bool) -> CrossLayerTranscoder:
    torch.manual_seed(1)
    made = CrossLayerTranscoder(
        *(N_LAYERS, D_TRANSCODER, D_MODEL),
        skip_connection=skip,
        lazy_decoder=False,
        feature_input_hook=hook,
        feature_output_hook=output,
        scan="random",
        **ON_CPU,
    )
    return randomised(made)


def largest_error(
    architecture: str, basis: FeatureBasis, tokenizer: PreTrainedTokenizerFast, zero: slice
) -> float:
    model = random_model(architecture)
    rows = model.lm_head.weight.detach()
    directions = torch.stack([rows[3] - rows[30], rows[7]])
    linear = frozen_on(model, PROMPT)
    A = adjacency(linear, components_of(linear, basis, zero), directions, MEMORY)
    replacement = WholeReplacementModel.around(model, tokenizer, basis)
    replacement.zero_positions = zero
    targets = [CustomTarget(f"target {i}", 0.5, vector) for i, vector in enumerate(directions)]
    graph = attribute(torch.tensor(PROMPT), replacement, attribution_targets=targets, batch_size=64)
    return relative_error(A, graph.adjacency_matrix)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("make", [per_layer, cross_layer])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_edge_between_transcoder_features_equals_circuit_tracers(  # type: ignore[no-untyped-def]
    architecture: str, make, skip: bool, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    row = TABLE[architecture]
    basis = make(row.hook_input, row.hook_output, skip)
    assert largest_error(architecture, basis, word_tokenizer, KEEP_ALL_POSITIONS) < 1e-5


def test_a_basis_may_read_the_raw_stream_and_leave_out_the_first_position(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    basis = cross_layer("hook_resid_mid", "hook_mlp_out", skip=False)
    assert largest_error("Gemma3ForCausalLM", basis, word_tokenizer, slice(0, 1)) < 1e-5


@pytest.mark.parametrize("n", [5, 40])
def test_circuit_tracers_choice_of_features_is_reproduced(
    n: int, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = random_model("Gemma3ForCausalLM")
    basis = per_layer("mlp.hook_in", "hook_mlp_out", skip=False)
    rows = model.lm_head.weight.detach()
    directions, weights = torch.stack([rows[3] - rows[30], rows[7]]), [0.7, 0.3]
    targets = [CustomTarget("t", w, d) for d, w in zip(directions, weights, strict=True)]
    graph = attribute(
        torch.tensor(PROMPT),
        WholeReplacementModel.around(model, word_tokenizer, basis),
        attribution_targets=targets,
        batch_size=4,
        max_feature_nodes=n,
        update_interval=2,
    )
    linear = frozen_on(model, PROMPT)
    chosen, A = attribute_by_influence(
        linear,
        components_of(linear, basis),
        directions,
        torch.tensor(weights),
        max_feature_nodes=n,
        rows_per_round=8,
        fold=False,
        max_memory_gb=MEMORY,
    )
    assert chosen.tolist() == graph.selected_features.tolist()
    assert relative_error(A, graph.adjacency_matrix) < 1e-5


def test_a_basis_with_no_active_feature_leaves_errors_and_tokens() -> None:
    model = random_model("LlamaForCausalLM")
    linear = frozen_on(model, PROMPT)
    basis = per_layer("mlp.hook_in", "mlp.hook_out", skip=False)
    for transcoder in basis:
        transcoder.b_enc.data.fill_(-1e9)
        transcoder.b_dec.data.zero_()
    direction = direction_of(model)
    A = adjacency(linear, components_of(linear, basis), direction.unsqueeze(0), MEMORY)
    assert A.shape == ((N_LAYERS + 1) * len(PROMPT) + 1,) * 2
    value = direction @ linear.frozen.final_normalised[0]
    torch.testing.assert_close(A[-1].sum(), value, atol=1e-4, rtol=1e-3)


def test_what_components_are_not_of_is_refused() -> None:
    model = random_model("LlamaForCausalLM")
    linear, two = frozen_on(model, PROMPT), frozen_on(model, PROMPT, PROMPT)
    with pytest.raises(ValueError, match="reads at"):
        components_of(linear, per_layer("hook_resid_pre", "hook_mlp_out", skip=False))
    with pytest.raises(ValueError, match="writes at"):
        components_of(linear, per_layer("hook_resid_mid", "hook_resid_post", skip=False))
    with pytest.raises(ValueError, match="one prompt"):
        components_of(two, per_layer("hook_resid_mid", "hook_mlp_out", skip=False))

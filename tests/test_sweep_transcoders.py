"""The sweep on circuit-tracer's own transcoders, against circuit-tracer."""

from __future__ import annotations

import pytest
import torch
from circuit_tracer.attribution.attribute import attribute
from circuit_tracer.attribution.targets import CustomTarget
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
from torch.nn import functional

from circuitdrift.attribution.by_influence import attribute_by_influence
from circuitdrift.attribution.circuit_tracer_engine import WholeReplacementModel
from circuitdrift.attribution.components import KEEP_ALL_POSITIONS, components_of
from circuitdrift.attribution.frozen_pass import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.sweep import sweep
from circuitdrift.features.basis import FeatureBasis
from circuitdrift.models.architecture import ARCHITECTURES as TABLE
from linearised import ARCHITECTURES, SIZES, random_model

PROMPT = [2, 5, 7, 9, 11, 4, 8, 3]
N_LAYERS, D_MODEL, D_TRANSCODER = SIZES["num_hidden_layers"], SIZES["hidden_size"], 16


def randomised(transcoders):  # type: ignore[no-untyped-def]
    for parameter in transcoders.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return transcoders


def per_layer(hook: str, output: str, skip: bool) -> TranscoderSet:
    torch.manual_seed(1)
    layers = {
        layer: SingleLayerTranscoder(
            D_MODEL,
            D_TRANSCODER,
            functional.relu,
            layer,
            skip_connection=skip,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        for layer in range(N_LAYERS)
    }
    return randomised(TranscoderSet(layers, hook, output, scan="random"))


def cross_layer(hook: str, output: str, skip: bool) -> CrossLayerTranscoder:
    torch.manual_seed(1)
    return randomised(
        CrossLayerTranscoder(
            N_LAYERS,
            D_TRANSCODER,
            D_MODEL,
            skip_connection=skip,
            lazy_decoder=False,
            feature_input_hook=hook,
            feature_output_hook=output,
            scan="random",
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
    )


def largest_error(architecture: str, basis: FeatureBasis, tokenizer, zero: slice) -> float:  # type: ignore[no-untyped-def]
    """Of any edge, relative to the largest edge."""
    model = random_model(architecture)
    rows = model.lm_head.weight.detach()
    directions = torch.stack([rows[3] - rows[30], rows[7]])
    linear = LinearModel(model, freeze(model, [PROMPT]))
    A = sweep(linear, components_of(linear, basis, zero), directions, max_memory_gb=1.0)

    replacement = WholeReplacementModel.around(model, tokenizer, basis)
    replacement.zero_positions = zero
    targets = [CustomTarget(f"target {i}", 0.5, vector) for i, vector in enumerate(directions)]
    graph = attribute(torch.tensor(PROMPT), replacement, attribution_targets=targets, batch_size=64)
    assert A.shape == graph.adjacency_matrix.shape
    return float((A - graph.adjacency_matrix).abs().max() / A.abs().max())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("make", [per_layer, cross_layer])
@pytest.mark.parametrize("skip", [False, True])
def test_every_edge_equals_circuit_tracers(architecture, make, skip, word_tokenizer) -> None:  # type: ignore[no-untyped-def]
    row = TABLE[architecture]
    basis = make(row.hook_input, row.hook_output, skip)
    assert largest_error(architecture, basis, word_tokenizer, KEEP_ALL_POSITIONS) < 1e-5


@pytest.mark.parametrize("n", [5, 40])
def test_circuit_tracers_choice_of_features_is_reproduced(n: int, word_tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = random_model("Gemma3ForCausalLM")
    basis = per_layer("mlp.hook_in", "hook_mlp_out", skip=False)
    rows = model.lm_head.weight.detach()
    directions = torch.stack([rows[3] - rows[30], rows[7]])
    replacement = WholeReplacementModel.around(model, word_tokenizer, basis)
    graph = attribute(
        torch.tensor(PROMPT),
        replacement,
        attribution_targets=[
            CustomTarget("a", 0.7, directions[0]),
            CustomTarget("b", 0.3, directions[1]),
        ],
        batch_size=4,
        max_feature_nodes=n,
        update_interval=2,
    )
    linear = LinearModel(model, freeze(model, [PROMPT]))
    chosen, A = attribute_by_influence(
        linear,
        components_of(linear, basis),
        directions,
        torch.tensor([0.7, 0.3]),
        max_feature_nodes=n,
        rows_per_round=8,
        fold=False,
        max_memory_gb=1.0,
    )
    assert chosen.tolist() == graph.selected_features.tolist()
    assert (A - graph.adjacency_matrix).abs().max() < 1e-5 * A.abs().max()


def test_a_basis_may_read_the_raw_stream_and_leave_out_the_first_position(word_tokenizer) -> None:  # type: ignore[no-untyped-def]
    basis = cross_layer("hook_resid_mid", "hook_mlp_out", skip=False)
    assert largest_error("Gemma3ForCausalLM", basis, word_tokenizer, slice(0, 1)) < 1e-5


def test_an_unknown_hook_is_refused() -> None:
    model = random_model("LlamaForCausalLM")
    linear = LinearModel(model, freeze(model, [PROMPT]))
    with pytest.raises(ValueError, match="reads at"):
        components_of(linear, per_layer("hook_resid_pre", "hook_mlp_out", skip=False))
    with pytest.raises(ValueError, match="writes at"):
        components_of(linear, per_layer("hook_resid_mid", "hook_resid_post", skip=False))


def test_a_basis_with_no_active_feature_leaves_errors_and_tokens() -> None:
    model = random_model("LlamaForCausalLM")
    linear = LinearModel(model, freeze(model, [PROMPT]))
    basis = per_layer("mlp.hook_in", "mlp.hook_out", skip=False)
    for transcoder in basis:
        transcoder.b_enc.data.fill_(-1e9)
        transcoder.b_dec.data.zero_()
    components = components_of(linear, basis)
    direction = model.lm_head.weight.detach()[3]
    A = sweep(linear, components, direction.unsqueeze(0), max_memory_gb=1.0)
    assert len(components.features) == 0
    assert A.shape == ((N_LAYERS + 1) * len(PROMPT) + 1,) * 2
    value = direction @ linear.frozen.final_normalised[0]
    torch.testing.assert_close(A[-1].sum(), value, atol=1e-4, rtol=1e-3)

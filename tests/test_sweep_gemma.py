"""The sweep against circuit-tracer on the real Gemma, where models/base holds it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from circuitdrift.attribution.circuit_tracer_engine import (
    WholeReplacementModel,
    attribute_neurons,
    no_neurons,
)
from circuitdrift.attribution.components import components_of
from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.frozen_pass import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.selection import strongest
from circuitdrift.attribution.sweep import sweep
from circuitdrift.attribution.targets import top_answer_target
from circuitdrift.features.neurons import NeuronBasis
from circuitdrift.models.loading import load_model, load_tokenizer

TEXTS = ("The capital of France is", "The meaning of blarf is", "A glide moves a kite")


@pytest.mark.parametrize("text", TEXTS)
def test_every_edge_equals_circuit_tracers_on_gemma(gemma_base: Path, text: str) -> None:
    model, tokenizer = load_model(gemma_base), load_tokenizer(gemma_base)
    tokens = tokenizer(text).input_ids
    linear = LinearModel(model, freeze(model, [tokens]))
    unembedding = model.lm_head.weight.detach()
    logits = unembedding @ linear.frozen.final_normalised[0]
    direction = top_answer_target(logits).direction(unembedding)
    neurons = effects(linear, direction.view(1, 1, -1)).neurons[0, 0]
    components = components_of(linear, NeuronBasis(model, strongest(neurons, 128)))
    A = sweep(linear, components, direction.unsqueeze(0), max_memory_gb=1.0)

    replacement = WholeReplacementModel.around(model, tokenizer, no_neurons(model))
    graph = attribute_neurons(replacement, tokens, direction, components.features, batch_size=64)
    assert (A - graph.adjacency_matrix).abs().max() < 1e-5 * A.abs().max()
    sums = A[: len(components.activations)].sum(1)
    torch.testing.assert_close(sums, components.activations, atol=1e-3, rtol=1e-4)

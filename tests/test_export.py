"""circuit-tracer's own functions on a swept graph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from circuit_tracer.graph import compute_graph_scores, prune_graph
from circuit_tracer.utils.create_graph_files import create_graph_files
from transformers import AutoTokenizer

from circuitdrift.attribution.edges import adjacency, components_of
from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.frozen import freeze
from circuitdrift.attribution.growth import strongest
from circuitdrift.attribution.influence import normalise, scores
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.neurons import NeuronBasis
from circuitdrift.circuits.circuit import NodeKind, node_table
from exported_graph import as_circuit_tracer_graph


def test_pruning_scores_and_graph_files_take_a_swept_graph(
    tiny_base: Path,
    tiny_model,  # type: ignore[no-untyped-def]
    tmp_path: Path,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokens = tokenizer("To feel blarf is to feel").input_ids
    linear = LinearModel(tiny_model, freeze(tiny_model, [tokens]))
    rows = tiny_model.lm_head.weight.detach()
    direction = rows[30] - rows[40]
    effect = effects(linear, direction.view(1, 1, -1)).neurons[0, 0]
    components = components_of(linear, NeuronBasis(tiny_model, strongest(effect, 40)))
    A = adjacency(linear, components, direction.unsqueeze(0), max_memory_gb=1.0)
    graph = as_circuit_tracer_graph(
        A,
        components,
        tiny_model,
        tokenizer,
        tokens=tokens,
        targets=[("target", 1.0)],
        scan="neurons",
    )

    kind = torch.from_numpy(node_table(components.features.numpy(), linear.n_layers, tokens)[:, 0])
    weights = (kind == NodeKind.TARGET).float()
    ours = scores(normalise(A), weights, kind == NodeKind.ERROR, kind == NodeKind.TOKEN)
    assert compute_graph_scores(graph) == pytest.approx((ours.replacement, ours.completeness))
    assert prune_graph(graph).node_mask.sum() > len(tokens)

    graph.cfg.tokenizer_name = str(tiny_base)
    create_graph_files(graph, "tiny-blarf", str(tmp_path), scan="neurons")
    written = json.loads((tmp_path / "tiny-blarf.json").read_text())
    kept = prune_graph(graph).edge_mask.sum()
    assert 0 < len(written["links"]) <= kept
    assert torch.isfinite(torch.tensor([link["weight"] for link in written["links"]])).all()

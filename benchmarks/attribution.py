"""The pass that computes edges against circuit-tracer, and the effects of all neurons.

    python benchmarks/attribution.py [--out DIR]

Writes attribution.csv, effects.csv and machine.txt. Edges: same model, prompt, active features and
selection. Both engines choose the features to expand by circuit-tracer's own rule among the same
active neurons (the loudest at each layer and position), in the same rounds, and the time counts
everything from tokens to the adjacency. Effects: forward pass included, one prompt at a time and
in batches, held against circuit-tracer's time for a graph.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from arithmetic import edges_operations, effects_operations
from circuit_tracer.attribution.attribute import attribute
from circuit_tracer.attribution.targets import CustomTarget
from circuit_tracer.graph import Graph
from subjects import (
    Subject,
    describe,
    forget_peak_memory,
    matmul_rate,
    peak_memory_gb,
    subject,
    timed,
)
from torch import Tensor

from circuitdrift.attribution.circuit_tracer import WholeReplacementModel, tokenizer_of
from circuitdrift.attribution.edges import components_of, feature_rows, target_rows
from circuitdrift.attribution.effects import Effects, effects
from circuitdrift.attribution.frozen import freeze
from circuitdrift.attribution.growth import attribute_by_influence, decoder_norms, loudest
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.neurons import NeuronBasis
from circuitdrift.core.files import write_table, write_text
from circuitdrift.models.loading import prepare_torch
from circuitdrift.params import Compute

MODELS = ("gemma-3-270m", "smollm2-135m")
# Tokens and feature nodes, None for all that are active. All active features of longer prompts
# make an adjacency that does not fit this size of machine.
GRAPHS = ((9, 512), (9, 2048), (9, None), (32, 512), (32, 2048), (128, 512))
COMPARED_GRAPH = (9, 2048)  # that effects are held against
ACTIVE = 64  # neurons per layer and position that count as active
BATCH_SIZE = 64
UPDATE_INTERVAL = 4  # circuit-tracer's own
MAX_MEMORY_GB = 2.0
REPEATS = 5
ENOUGH_S = 20.0  # seconds after which a graph is not traced again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    prepare_torch(Compute(threads=arguments.threads, kernels="native"))
    write_text(arguments.out / "machine.txt", describe() + "\n")
    graphs: dict[tuple[str, int, int | None], dict[str, Any]] = {}
    prompts: list[dict[str, Any]] = []
    for name in MODELS:
        with subject(name) as measured:
            for tokens, nodes in GRAPHS:
                graphs[name, tokens, nodes] = measure_graph(measured, tokens, nodes)
                print(graphs[name, tokens, nodes], flush=True)
            compared = (name, *COMPARED_GRAPH)
            compared_s = graphs[compared]["circuit_tracer_s"]
            for tokens in (9, 32, 128):
                for batch in (1, 32):
                    row = measure_effects(measured, tokens, batch)
                    prompts.append({**row, "graphs_per_prompt": compared_s / row["effects_s"]})
                    print(prompts[-1], flush=True)
    write_table(arguments.out / "attribution.csv", pd.DataFrame(graphs.values()))
    write_table(arguments.out / "effects.csv", pd.DataFrame(prompts))


def measure_graph(measured: Subject, n_tokens: int, most_nodes: int | None) -> dict[str, Any]:
    tokens = measured.prompt(n_tokens)
    active = loudest(measured.frozen(tokens), ACTIVE, decoder_norms(measured.model))
    nodes = min(most_nodes or len(active), len(active))
    mine = edges(measured, tokens, nodes)
    theirs = traced(measured, tokens, active, nodes)

    mine()
    forget_peak_memory()
    (chosen, A), edges_s = timed(mine, REPEATS, ENOUGH_S)
    peak_gb = peak_memory_gb()
    graph, circuit_tracer_s = timed(theirs, REPEATS, ENOUGH_S)
    least = least_operations(measured, tokens, active, chosen)
    return {
        "model": measured.name,
        "tokens": n_tokens,
        "nodes": nodes,
        "circuit_tracer_s": median(circuit_tracer_s),
        "edges_s": median(edges_s),
        "ratio": median(circuit_tracer_s) / median(edges_s),
        "max_rel_error": largest_error(chosen, A, graph),
        "limit_fraction": least / matmul_rate() / median(edges_s),
        "peak_gb": peak_gb,
        "circuit_tracer_runs": len(circuit_tracer_s),
        "edges_runs": len(edges_s),
    }


def least_operations(measured: Subject, tokens: list[int], active: Tensor, chosen: Tensor) -> float:
    """Of the chosen features' rows and the target's against all active features."""
    linear = measured.frozen(tokens)
    rows = feature_rows(components_of(linear, NeuronBasis(measured.model, active)))[chosen]
    target = target_rows(linear, measured.direction(linear).unsqueeze(0))
    return sum(edges_operations(linear, part, len(active)) for part in (rows, target))


def edges(measured: Subject, tokens: list[int], nodes: int) -> Callable[[], tuple[Tensor, Tensor]]:
    direction = measured.direction(measured.frozen(tokens))
    norms = decoder_norms(measured.model)

    def work() -> tuple[Tensor, Tensor]:
        linear = measured.frozen(tokens)
        basis = NeuronBasis(measured.model, loudest(linear, ACTIVE, norms))
        return attribute_by_influence(
            linear,
            components_of(linear, basis),
            direction.unsqueeze(0),
            torch.ones(1),
            max_feature_nodes=nodes,
            rows_per_round=UPDATE_INTERVAL * BATCH_SIZE,
            fold=False,
            max_memory_gb=MAX_MEMORY_GB,
        )

    return work


def traced(measured: Subject, tokens: list[int], active: Tensor, nodes: int) -> Callable[[], Graph]:
    basis = NeuronBasis(measured.model, active)
    direction = measured.direction(measured.frozen(tokens))
    replacement = WholeReplacementModel.around(measured.model, tokenizer_of(measured.model), basis)
    target = CustomTarget("target", 1.0, direction)

    def work() -> Graph:
        return attribute(
            torch.tensor(tokens),
            replacement,
            attribution_targets=[target],
            batch_size=BATCH_SIZE,
            max_feature_nodes=nodes,
            update_interval=UPDATE_INTERVAL,
        )

    return work


def largest_error(chosen: Tensor, A: Tensor, graph: Graph) -> float:
    """Of any edge between nodes that both chose, relative to the largest edge.

    Where influences tie to the last bit the two may choose differently at the cut; at most one
    node in a hundred may.
    """
    theirs = graph.selected_features
    common = torch.tensor(sorted(set(chosen.tolist()) & set(theirs.tolist())))
    assert len(common) >= 0.99 * len(chosen), f"{len(common)} of {len(chosen)} features in common"
    rest = torch.arange(len(A) - len(chosen))
    mine = torch.cat([torch.searchsorted(chosen, common), len(chosen) + rest])
    other = torch.cat([torch.searchsorted(theirs, common), len(theirs) + rest])
    difference = A[mine][:, mine] - graph.adjacency_matrix[other][:, other]
    return float(difference.abs().max() / A.abs().max())


def measure_effects(measured: Subject, n_tokens: int, batch: int) -> dict[str, Any]:
    prompts = [measured.prompt(n_tokens)] * batch

    def work() -> Effects:
        linear = LinearModel(measured.model, freeze(measured.model, prompts))
        return effects(linear, measured.direction(linear).expand(batch, 1, -1))

    for _ in range(3):
        work()
    forget_peak_memory()
    _, seconds = timed(work, REPEATS, enough_s=60)
    peak_gb = peak_memory_gb()
    least = effects_operations(LinearModel(measured.model, freeze(measured.model, prompts)))
    return {
        "model": measured.name,
        "tokens": n_tokens,
        "batch": batch,
        "effects_s": median(seconds) / batch,
        "limit_fraction": least / matmul_rate() / median(seconds),
        "peak_gb": peak_gb,
    }


if __name__ == "__main__":
    main()

"""The sweep and circuit-tracer side by side: same model, prompt, active features and selection.

    python benchmarks/attribution.py [--out DIR]

Writes attribution.csv and machine.txt. Both engines choose the features to expand by
circuit-tracer's own rule among the same active neurons (the loudest at each layer and position),
in the same rounds, and the time counts everything from tokens to the adjacency.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from circuit_tracer.attribution.attribute import attribute
from circuit_tracer.attribution.targets import CustomTarget
from circuit_tracer.graph import Graph
from machine import describe, forget_peak_memory, matmul_rate, peak_memory_gb
from subjects import Subject, subject, timed
from torch import Tensor

from circuitdrift.artifacts import write_table, write_text
from circuitdrift.attribution.arithmetic import sweep_operations
from circuitdrift.attribution.by_influence import attribute_by_influence
from circuitdrift.attribution.circuit_tracer_engine import WholeReplacementModel
from circuitdrift.attribution.components import components_of
from circuitdrift.attribution.selection import decoder_norms, loudest
from circuitdrift.attribution.sweep import feature_rows, target_rows
from circuitdrift.features.neurons import NeuronBasis
from circuitdrift.models.loading import use_threads

BATCH_SIZE = 64
UPDATE_INTERVAL = 4  # circuit-tracer's own
MAX_MEMORY_GB = 2.0


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes:
        active: neurons per layer and position that count as active.
        nodes: feature nodes of the graph; None for all that are active.
    """

    model: str
    tokens: int
    nodes: int | None
    active: int = 64


# All active features of longer prompts make an adjacency that does not fit this size of machine.
GRID = [
    Cell(model, tokens, nodes)
    for model in ("gemma-3-270m", "smollm2-135m")
    for tokens, nodes in [(9, 512), (9, 2048), (9, None), (32, 512), (32, 2048), (128, 512)]
]
# Many minutes of circuit-tracer's for one graph.
LONG_GRID = [Cell("gemma-3-270m", 128, 2048), Cell("smollm2-135m", 128, 2048)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--enough-s", type=float, default=20.0, help="seconds after which a cell stops"
    )
    parser.add_argument("--long", action="store_true", help="also 2048 nodes on 128 tokens")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    machine = describe()
    print(machine)
    grid = GRID + (LONG_GRID if arguments.long else [])
    rows: list[dict[str, Any]] = []
    for name, cells in groupby(grid, key=lambda cell: cell.model):
        with subject(name) as measured:
            for cell in cells:
                rows.append(measure(measured, cell, arguments.repeats, arguments.enough_s))
                print(rows[-1], flush=True)
                write_table(arguments.out / "attribution.csv", pd.DataFrame(rows))
    write_text(arguments.out / "machine.txt", machine + "\n")


def measure(measured: Subject, cell: Cell, repeats: int, enough_s: float) -> dict[str, Any]:
    tokens = measured.prompt(cell.tokens)
    norms = decoder_norms(measured.model)
    active = loudest(measured.frozen(tokens), cell.active, norms)
    nodes = min(cell.nodes or len(active), len(active))
    mine = swept(measured, tokens, cell.active, nodes)
    theirs = traced(measured, tokens, active, nodes)

    mine()
    forget_peak_memory()
    (chosen, A), sweep_s = timed(mine, repeats, enough_s)
    peak_gb = peak_memory_gb()
    graph, circuit_tracer_s = timed(theirs, repeats, enough_s)
    rate = matmul_rate()

    least = least_operations(measured, tokens, active, chosen)
    return {
        "model": cell.model,
        "tokens": cell.tokens,
        "nodes": nodes,
        "circuit_tracer_s": median(circuit_tracer_s),
        "sweep_s": median(sweep_s),
        "ratio": median(circuit_tracer_s) / median(sweep_s),
        "max_rel_error": largest_error(chosen, A, graph),
        "limit_fraction": least / rate / median(sweep_s),
        "peak_gb": peak_gb,
        "circuit_tracer_runs": len(circuit_tracer_s),
        "sweep_runs": len(sweep_s),
    }


def least_operations(measured: Subject, tokens: list[int], active: Tensor, chosen: Tensor) -> float:
    """Of the chosen features' rows and the target's against all active features."""
    linear = measured.frozen(tokens)
    rows = feature_rows(components_of(linear, NeuronBasis(measured.model, active)))[chosen]
    target = target_rows(linear, measured.direction(linear).unsqueeze(0))
    return sum(sweep_operations(linear, part, len(active)) for part in (rows, target))


def swept(
    measured: Subject, tokens: list[int], active: int, nodes: int
) -> Callable[[], tuple[Tensor, Tensor]]:
    direction = measured.direction(measured.frozen(tokens))
    norms = decoder_norms(measured.model)

    def work() -> tuple[Tensor, Tensor]:
        linear = measured.frozen(tokens)
        basis = NeuronBasis(measured.model, loudest(linear, active, norms))
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
    replacement = WholeReplacementModel.around(measured.model, measured.tokenizer, basis)
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


if __name__ == "__main__":
    main()

"""Which neurons to expand: what each choice explains, at equal node count and at equal time.

    python benchmarks/selection.py [--out DIR]

Takes 20 prompts of the study on its base model (`make reproduce` first) and writes selection.csv.
Every choice is accounted alike: neurons that are not expanded stand in the error of their layer
and position. Seconds count the choice and the edges, from a frozen pass on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from subjects import Subject, matmul_rate, subject, timed
from torch import Tensor

from circuitdrift.attribution.edges import adjacency, components_of
from circuitdrift.attribution.effects import effects
from circuitdrift.attribution.growth import (
    attribute_by_influence,
    decoder_norms,
    loudest,
    strongest,
)
from circuitdrift.attribution.influence import normalise, scores
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.neurons import NeuronBasis
from circuitdrift.attribution.trace import segment_tokens
from circuitdrift.circuits.circuit import NodeKind, Scores, node_table
from circuitdrift.core import paths
from circuitdrift.core.files import write_table
from circuitdrift.core.prompts import read_prompts
from circuitdrift.models.loading import prepare_torch
from circuitdrift.params import Compute

NODES = (256, 512, 1024)
MAX_MEMORY_GB = 2.0
Choice = Callable[[LinearModel, Tensor, int], Tensor]


def largest_effect(linear: LinearModel, direction: Tensor, n: int) -> Tensor:
    return strongest(effects(linear, direction.view(1, 1, -1)).neurons[0, 0], n)


def longest_vector(linear: LinearModel, _direction: Tensor, n: int) -> Tensor:
    """Activation times decoder norm, over all layers and positions."""
    written = [
        (linear.block(layer).mlp.act_fn(frozen.gate) * frozen.up)[0]
        * linear.block(layer).mlp.down_proj.weight.norm(dim=0)
        for layer, frozen in enumerate(linear.frozen.layers)
    ]
    return strongest(torch.stack(written), n)


def by_influence(per_place: int, rounds: int | None) -> Choice:
    """In rounds, among the loudest neurons of each layer and position.

    Args:
        rounds: None for circuit-tracer's own rounds of 256 neurons.
    """

    def choose(linear: LinearModel, direction: Tensor, n: int) -> Tensor:
        candidates = loudest(linear, per_place, decoder_norms(linear.model))
        components = components_of(linear, NeuronBasis(linear.model, candidates))
        chosen, _ = attribute_by_influence(
            linear,
            components,
            direction.unsqueeze(0),
            torch.ones(1),
            max_feature_nodes=n,
            rows_per_round=256 if rounds is None else n // rounds,
            fold=True,
            max_memory_gb=MAX_MEMORY_GB,
        )
        return components.features[chosen]

    return choose


CHOICES: dict[str, Choice] = {
    "|effect|": largest_effect,
    "activation x decoder norm": longest_vector,
    "influence in circuit-tracer's rounds, 64 per place": by_influence(64, rounds=None),
    **{
        f"influence in {rounds} rounds, {per_place} per place": by_influence(per_place, rounds)
        for per_place, rounds in ((16, 4), (16, 16), (32, 4), (64, 4))
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=20)
    arguments = parser.parse_args()
    prepare_torch(Compute(threads=arguments.threads, kernels="native"))
    matmul_rate()
    prompts = [prompt for prompt in read_prompts(paths.PROMPTS) if prompt.role == "discovery"]
    every = len(prompts) // arguments.prompts
    rows: list[dict[str, Any]] = []
    with subject("gemma-3-270m") as measured, torch.no_grad():
        for prompt in track(prompts[::every][: arguments.prompts], description="choices"):
            tokens, _ = segment_tokens(measured.tokenizer, prompt)
            for name, choose in CHOICES.items():
                for nodes in NODES:
                    found, seconds = explained(measured, list(tokens), choose, nodes)
                    row = {"choice": name, "nodes": nodes, "seconds": seconds, **vars(found)}
                    rows.append({"prompt": prompt.id, **row})
    write_table(arguments.out / "selection.csv", summary(pd.DataFrame(rows)))


def explained(
    measured: Subject, tokens: list[int], choose: Choice, nodes: int
) -> tuple[Scores, float]:
    """Scores of the graph that a choice gives, and the seconds it took."""
    linear = measured.frozen(tokens)
    direction = measured.direction(linear)

    def work() -> tuple[Tensor, Tensor]:
        expanded = choose(linear, direction, nodes)
        components = components_of(linear, NeuronBasis(measured.model, expanded))
        return expanded, adjacency(linear, components, direction.unsqueeze(0), MAX_MEMORY_GB)

    (expanded, A), (seconds,) = timed(work, repeats=1, enough_s=0)
    kind = torch.from_numpy(node_table(expanded.numpy(), linear.n_layers, tokens)[:, 0])
    weights = (kind == NodeKind.TARGET).float()
    is_error, is_token = kind == NodeKind.ERROR, kind == NodeKind.TOKEN
    return scores(normalise(A), weights, is_error, is_token), seconds


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over prompts at each node count, and at the time that |effect| takes for 1024.

    Between node counts values are interpolated; a choice that needs less time even for the most
    nodes stands there with those.
    """
    measures = ["replacement", "completeness", "error_mass"]
    means = rows.groupby(["choice", "nodes"], as_index=False, sort=False)[
        ["seconds", *measures]
    ].mean()
    means.insert(0, "compared_at", "equal nodes")
    ours = means[(means["choice"] == "|effect|") & (means["nodes"] == 1024)]
    (budget,) = ours["seconds"]
    at_budget = [
        {
            "compared_at": "equal time",
            "choice": choice,
            "nodes": round(float(np.interp(budget, group["seconds"], group["nodes"]))),
            "seconds": budget,
            **{name: float(np.interp(budget, group["seconds"], group[name])) for name in measures},
        }
        for choice, group in means.groupby("choice", sort=False)
    ]
    return pd.concat([means, pd.DataFrame(at_budget)], ignore_index=True)


if __name__ == "__main__":
    main()

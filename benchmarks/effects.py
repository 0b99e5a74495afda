"""Effects of all neurons, forward pass included, one prompt at a time and in batches.

    python benchmarks/effects.py [--out DIR]

Writes effects.csv. Run after benchmarks/attribution.py, whose table gives circuit-tracer's time
for a graph of 2048 nodes on 9 tokens of the same model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from machine import forget_peak_memory, matmul_rate, peak_memory_gb
from subjects import Subject, subject, timed

from circuitdrift.artifacts import write_table
from circuitdrift.attribution.arithmetic import effects_operations
from circuitdrift.attribution.effects import Effects, effects
from circuitdrift.attribution.frozen_pass import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.models.loading import use_threads

GRAPH = {"tokens": 9, "nodes": 2048}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    graphs = pd.read_csv(arguments.out / "attribution.csv")
    rows: list[dict[str, Any]] = []
    for name in graphs["model"].unique():
        same = graphs[(graphs[list(GRAPH)] == pd.Series(GRAPH)).all(axis=1)]
        (circuit_tracer_s,) = same.loc[same["model"] == name, "circuit_tracer_s"]
        with subject(name) as measured:
            for tokens in (9, 32, 128):
                for batch in (1, 32):
                    row = measure(measured, tokens, batch)
                    rows.append({**row, "graphs_per_prompt": circuit_tracer_s / row["effects_s"]})
                    print(rows[-1], flush=True)
    write_table(arguments.out / "effects.csv", pd.DataFrame(rows))


def measure(measured: Subject, n_tokens: int, batch: int) -> dict[str, Any]:
    tokens = measured.prompt(n_tokens)
    work = traced_effects(measured, tokens, batch)
    for _ in range(3):
        work()
    forget_peak_memory()
    _, seconds = timed(work, repeats=5, enough_s=60)
    linear = LinearModel(measured.model, freeze(measured.model, [tokens] * batch))
    least = effects_operations(linear) / matmul_rate()
    return {
        "model": measured.name,
        "tokens": n_tokens,
        "batch": batch,
        "effects_s": median(seconds) / batch,
        "limit_fraction": least / median(seconds),
        "peak_gb": peak_memory_gb(),
    }


def traced_effects(measured: Subject, tokens: list[int], batch: int) -> Callable[[], Effects]:
    def work() -> Effects:
        linear = LinearModel(measured.model, freeze(measured.model, [tokens] * batch))
        return effects(linear, measured.direction(linear).expand(batch, 1, -1))

    return work


if __name__ == "__main__":
    main()

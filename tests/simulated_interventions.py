"""Simulated rows of the tables of interventions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.stages.report import INTERVENTIONS
from study_plans import MODELS, Plan, identity, progress, prompts

SIZES = (0.001, 0.01, 0.1, 1.0)


def interventions(plan: Plan, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    found: dict[str, list[dict[str, Any]]] = {
        name: []
        for name in ("faithfulness", "transfer", "patching", "specificity", "ablation_rank")
    }
    runs = [run for run in plan.runs if plan.validated and run.condition == "mapped"]
    for run in runs:
        for prompt in prompts(plan, "evaluation"):
            of = {**identity(run), **{key: prompt[key] for key in ("prompt", "type", "word")}}
            found["faithfulness"] += [{**of, **row} for row in faithfulness_rows(plan, rng)]
            found["transfer"] += [{**of, **row} for row in transfer_rows(plan)]
            if plan.recruited:
                found["patching"] += [{**of, **row} for row in patching_rows(plan, rng)]
            found["specificity"] += [
                {**of, "circuit": circuit, "prompts": prompt["type"], "full": 4.0, "ablated": left}
                for circuit, left in (("simple", 1.0), ("spatial", 3.0), ("random", 4.0))
            ]
            found["ablation_rank"] += [
                {**of, "checkpoint": name, "n_nodes": 32, "spearman": 0.7 + 0.05 * rng.normal()}
                for name in ("base", "100")
            ]
    columns = ["run", "condition", "seed", "prompt", "type", "word"]
    return {
        name: pd.DataFrame(rows, columns=columns + INTERVENTIONS[name])
        for name, rows in found.items()
    }


def faithfulness_rows(plan: Plan, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for checkpoint in MODELS:
        full = 1.0 + plan.changed_target * progress(checkpoint)
        for ablation in ("mean", "counterfactual"):
            for circuit, power in (("own", 0.1), ("base", 0.2), ("random-0", 1), ("random-1", 1)):
                for size in SIZES:
                    yield {
                        "checkpoint": checkpoint,
                        "ablation": ablation,
                        "circuit": circuit,
                        "size": size,
                        "value": full * size**power * (1 + 0.02 * rng.normal()),
                        "full": full,
                        "empty": 0.0,
                    }


def transfer_rows(plan: Plan) -> Iterator[dict[str, Any]]:
    for found_at in MODELS:
        for model in MODELS:
            full = 1.0 + plan.changed_target * progress(model)
            near = 1 - abs(progress(found_at) - progress(model))
            yield {
                "circuit_from": found_at,
                "model": model,
                "value": full * near,
                "full": full,
                "empty": 0.0,
            }


def patching_rows(plan: Plan, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    base, tuned = 0.5, 0.5 + plan.changed_target
    for direction in ("sufficiency", "necessity"):
        start, goal = (base, tuned) if direction == "sufficiency" else (tuned, base)
        for nodes in ("recruited", "random-0", "random-1"):
            share = plan.recruited_share if nodes == "recruited" else plan.random_share
            moved = (share + 0.01 * rng.normal()) * (goal - start)
            yield {
                "direction": direction,
                "nodes": nodes,
                "n_nodes": 3,
                "base": base,
                "tuned": tuned,
                "patched": start + moved,
            }

"""Simulated rows of the tables of evaluation and comparison."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.identifiers import Run
from study_plans import CHECKPOINTS, MODELS, WORDS, Plan, identity, progress, prompts

GRAPH_MEASURES = (
    *("influence_drift", "node_jaccard", "nodes_added", "nodes_removed", "edge_jaccard"),
    *("edges_added", "edges_removed", "replacement_to", "completeness_to", "error_mass_to"),
)


def evaluation_rows(
    plan: Plan, rng: np.random.Generator, run: Run, checkpoints: tuple[str, ...]
) -> pd.DataFrame:
    last = dict(plan.accuracy)
    rows = []
    for checkpoint in checkpoints:
        share = 0.33 + progress(checkpoint) * (last.get(run.condition, 0.33) - 0.33)
        asked = list(prompts(plan, "evaluation"))
        n_right = round(share * len(asked))
        right = set(rng.permutation(len(asked))[:n_right].tolist())
        for index, prompt in enumerate(asked):
            rows.append(
                {
                    **identity(run),
                    "checkpoint": checkpoint,
                    "step": int(8 * progress(checkpoint)),
                    **prompt,
                    "p": share * rng.uniform(0.8, 1),
                    "log_odds": 10 * share + rng.normal(),
                    "correct_in_type": float(index in right),
                    "loss": np.nan,
                    "kl_to_base": progress(checkpoint) + 0.1 * rng.random(),
                    "activation_distance": progress(checkpoint) + 0.1 * rng.random(),
                }
            )
    return pd.DataFrame(rows)


def headlines(plan: Plan, evaluation: pd.DataFrame) -> dict[str, Any]:
    return {
        "base": {"base": headline(evaluation, "base")},
        **{
            run.name: {
                name: headline(evaluation[evaluation["run"] == run.name], name)
                for name in CHECKPOINTS
            }
            for run in plan.runs
        },
    }


def training_logs(plan: Plan) -> dict[str, pd.DataFrame]:
    steps = np.arange(1, 9)
    return {
        run.name: pd.DataFrame({"step": steps, "loss": 8.0 / steps + 0.1 * run.seed})
        for run in plan.runs
    }


def norm_rows(plan: Plan, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for run in plan.runs:
        for index, name in enumerate(CHECKPOINTS):
            for layer in range(3):
                norm = index + rng.random()
                yield {"run": run.name, "checkpoint": name, "layer": layer, "norm": norm}


def headline(evaluation: pd.DataFrame, checkpoint: str) -> dict[str, float]:
    rows = evaluation[evaluation["checkpoint"] == checkpoint]
    return {
        "accuracy": float(rows["correct_in_type"].mean()),
        "p": float(rows["p"].mean()),
        "top1": 0.5,
        "log_odds": -2.0,
        "target": 0.5,
        "reverse_accuracy": 0.25,
        "false_positive": 0.0625,
        "control_loss": 3.0,
    }


def drift_rows(plan: Plan, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    levels = dict(plan.drift)
    pairs = [*(("base", name) for name in CHECKPOINTS), *pairwise(CHECKPOINTS)]
    for run in plan.runs:
        of_run = 0.01 * rng.normal()
        for change in ("trained", "random-0")[: 1 + plan.random_adapters]:
            level = levels[run.condition if change == "trained" else "random"]
            for before, after in pairs if change == "trained" else pairs[:4]:
                for role, share in (("discovery", 1.0), ("evaluation", 1.0), ("control", 0.5)):
                    for prompt in prompts(plan, role):
                        reached = level * (progress(after) - progress(before)) ** 0.5
                        noise = (of_run + 0.01 * rng.normal()) * reached
                        has_graph = plan.graphs and prompt["prompt"].endswith("-0")
                        yield {
                            **identity(run),
                            "change": change,
                            "from": before,
                            "to": after,
                            **prompt,
                            "drift": share * reached + noise,
                            **dict.fromkeys(GRAPH_MEASURES, 0.5 if has_graph else np.nan),
                        }


def place_rows(plan: Plan, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for run in plan.runs:
        for layer in range(3):
            for segment in ("word", "last"):
                extra = 1.0 if (run.condition, layer, segment) == ("mapped", 2, "word") else 0.0
                yield {
                    **identity(run),
                    "from": "base",
                    "to": "100",
                    "role": "discovery",
                    "type": "simple",
                    "layer": layer,
                    "segment": segment,
                    "gained": 1.0 + extra,
                    "lost": 0.5,
                    "moved": 1.5 + extra + 0.01 * rng.normal(),
                    "before": 2.0,
                }


def feature_rows(plan: Plan) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                **identity(run),
                "from": "base",
                "to": "100",
                "feature": "L1/F3",
                "effect_from": 0.25,
                "effect_to": 1.75,
                "change": 1.5,
                "agreement": 0.875,
            }
            for run in plan.runs
        ]
    )


def overlap_rows(plan: Plan, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    pairs = [(a, b) for index, a in enumerate(MODELS) for b in MODELS[index + 1 :]]
    for run in plan.runs:
        for before, after in pairs:
            for role in ("discovery", "control"):
                for threshold in (0.5, 0.7, 0.9):
                    jaccard = 0.5 + 0.02 * rng.normal()
                    ceiling = 0.9 if len(plan.seeds) > 1 else np.nan
                    yield {
                        **identity(run),
                        "from": before,
                        "to": after,
                        "role": role,
                        "threshold": threshold,
                        "jaccard": jaccard,
                        "null": 0.1,
                        "ceiling": ceiling,
                        "corrected": (jaccard - 0.1) / (ceiling - 0.1),
                    }


def between_rows(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        {
            "checkpoint": checkpoint,
            "run_a": a.name,
            "run_b": b.name,
            "prompt": prompt["prompt"],
            "role": role,
            "drift": 0.3
            + (plan.between * progress(checkpoint) if a.condition != b.condition else 0)
            + 0.005 * rng.normal(),
        }
        for checkpoint in CHECKPOINTS
        for index, a in enumerate(plan.runs)
        for b in plan.runs[index + 1 :]
        for role in ("discovery", "evaluation", "control")
        for prompt in prompts(plan, role)
    ]
    return pd.DataFrame(rows, columns=["checkpoint", "run_a", "run_b", "prompt", "role", "drift"])


def recruited_rows(plan: Plan) -> pd.DataFrame:
    rows = [
        {
            "word": word,
            "type": type_,
            "layer": layer,
            "feature": 10 + layer,
            "name": f"L{layer}/F{10 + layer}",
            "direction": "retired" if layer == 3 else "recruited",
            "effect_base": 0.1,
            "effect_mapped": 0.5,
            "effect_shuffled": 0.125,
            "difference": -0.375 if layer == 3 else 0.375,
            "low": 0.25,
            "high": 0.5,
            "effect_size": 2.125,
            "p": 0.0001,
            "q": 0.01,
            "agreement": 0.875,
            "evaluation_difference": 0.25,
            "evaluation_low": 0.125,
            "evaluation_high": 0.375,
            "prompts": f"{type_}-{word}-discovery-0",
            "promotes": "happy nan |x|",
            "suppresses": "sad <bos> *",
        }
        for type_, word in WORDS
        for layer in range(4)
    ]
    return pd.DataFrame(rows)[: len(rows) if plan.recruited else 0]


def null_rows(plan: Plan) -> pd.DataFrame:
    sought = len(plan.seeds) > 1 and {"mapped", "shuffled"} <= set(plan.conditions)
    comparisons = ["mapped vs shuffled", "mapped halves"] if sought else []
    columns = {"n_a": 5, "n_b": 5, "n_tested": 100}
    found = [4, 0][: len(comparisons)]
    reliable = [2 * number for number in found]
    return pd.DataFrame(
        {"comparison": comparisons, **columns, "n_reliable": reliable, "n_found": found}
    )


def moved_rows(plan: Plan) -> pd.DataFrame:
    counts = {"trained": (30, 10), "random-0": (2, 1)}
    rows = [
        {**identity(run), "change": change, "n_tested": 100, "n_grown": grown, "n_shrunk": shrunk}
        for change, (grown, shrunk) in list(counts.items())[: 1 + plan.random_adapters]
        for run in plan.runs
    ]
    return pd.DataFrame(rows)


def control_rows(plan: Plan) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "run": run.name,
                "name": "L1/F7",
                "layer": 1,
                "feature": 7,
                "scale": 2.5,
                "rank": 1,
                "change": 2.5,
                "runner_up": 0.5,
            }
            for run in plan.runs
        ]
    )

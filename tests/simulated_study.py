"""A whole set of the study's tables, simulated, with differences planted in them or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from circuitdrift.core.yaml import read_yaml
from circuitdrift.params import Params, load_params
from circuitdrift.report.summaries import Study, headline_means, loss_by_step
from circuitdrift.stages.report import summarise

ROOT = Path(__file__).parent.parent
CHECKPOINTS = ("025", "050", "075", "100")
MODELS = ("base", *CHECKPOINTS)
PROGRESS = {name: 0.25 * index for index, name in enumerate(MODELS)}
WORDS = {"blarf": "simple", "gleem": "simple", "glide": "spatial"}
GRAPH_MEASURES = (
    *("influence_drift", "node_jaccard", "nodes_added", "nodes_removed", "edge_jaccard"),
    *("edges_added", "edges_removed", "replacement_to", "completeness_to", "error_mass_to"),
)


@dataclass(frozen=True)
class Plan:
    """What a simulated study holds, and how large the planted differences are.

    Attributes:
        drift: of mapped, shuffled and random adapters, mean from base at the last checkpoint.
        between: distance of runs of two conditions beyond that of runs of one.
        accuracy: of mapped and the others, share answered right at the last checkpoint.
        recruited_share: of the target's change, by patching.
    """

    conditions: tuple[str, ...] = ("mapped", "shuffled")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    prompts_per_word: int = 4
    random_adapters: bool = True
    recruited: bool = True
    intervened: bool = True
    graphs: bool = True
    changed_target: float = 4.0
    drift: tuple[float, float, float] = (0.7, 0.6, 0.05)
    between: float = 0.2
    accuracy: tuple[float, float] = (0.95, 0.35)
    recruited_share: float = 0.5


PLANTED = Plan()
# The same everywhere, and less than what is asked for.
NOTHING = Plan(
    prompts_per_word=8,
    drift=(0.05, 0.05, 0.05),
    between=0.0,
    accuracy=(0.34, 0.34),
    recruited_share=0.02,
)
REDUCED = {
    "one condition": replace(PLANTED, conditions=("mapped",)),
    "another condition": replace(
        PLANTED, conditions=("unrelated",), recruited=False, intervened=False
    ),
    "one seed": replace(PLANTED, seeds=(0,), recruited=False),
    "one run": replace(PLANTED, conditions=("mapped",), seeds=(3,), recruited=False),
    "no random adapters": replace(PLANTED, random_adapters=False),
    "nothing recruited": replace(PLANTED, recruited=False),
    "no interventions": replace(PLANTED, intervened=False),
    "few prompts, no graphs": replace(PLANTED, prompts_per_word=1, seeds=(0, 1), graphs=False),
    "target unmoved": replace(PLANTED, changed_target=0.0),
}


@lru_cache
def simulated_study(plan: Plan) -> Study:
    params, tables = study_params(plan), study_tables(plan, np.random.default_rng(0))
    return summarise(Study(params, tables, read_yaml(ROOT / "data/original_study.yaml")))


def study_params(plan: Plan) -> Params:
    shipped = load_params(ROOT / "params.yaml")
    runs = shipped.runs.model_copy(update={"conditions": plan.conditions, "seeds": plan.seeds})
    draws = {"bootstrap_samples": 100, "permutations": 300}
    statistics = shipped.statistics.model_copy(update=draws)
    return shipped.model_copy(update={"runs": runs, "statistics": statistics})


def study_tables(plan: Plan, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """What the stage reads, by name."""
    evaluation = evaluation_table(plan, rng)
    changes = ["trained", "random-0"][: 1 + plan.random_adapters]
    moved = of_runs(plan, change=changes)
    trained = moved["change"] == "trained"
    steps = np.arange(1, 9)
    norms = of_runs(plan, checkpoint=CHECKPOINTS, layer=range(3))
    features = {"effect_from": 0.25, "effect_to": 1.75, "change": 1.5, "agreement": 0.875}
    recruited = recruited_table() if plan.recruited else recruited_table()[:0]
    nulls = pd.DataFrame({"comparison": ["mapped vs shuffled", "mapped halves"], "n_found": [4, 0]})
    sought = len(plan.seeds) > 1 and {"mapped", "shuffled"} <= set(plan.conditions)
    return {
        "evaluation": evaluation,
        "headlines": headlines(evaluation),
        "loss": loss_by_step(
            {
                f"{condition}-{seed}": pd.DataFrame({"step": steps, "loss": 8 / steps + 0.1 * seed})
                for condition in plan.conditions
                for seed in plan.seeds
            }
        ),
        "norms": norms.assign(norm=norms.index + rng.random(len(norms))),
        "drift": drift_table(plan, rng, changes),
        "change_by_place": place_table(plan, rng),
        "changed_features": of_runs(plan).assign(
            **{"from": "base", "to": "100"}, feature="L1/F3", **features
        ),
        "overlap": overlap_table(plan, rng),
        "between_runs": between_table(plan, rng),
        "recruited": recruited,
        "recruitment_nulls": nulls[: 2 * sought],
        "moved_features": moved.assign(
            n_tested=100, n_grown=np.where(trained, 30, 2), n_shrunk=np.where(trained, 10, 1)
        ),
        "positive_control": of_runs(plan).assign(name="L1/F7", scale=2.5, rank=1),
        **interventions(plan, rng),
    }


def cross(**levels: Iterable[object]) -> pd.DataFrame:
    """A row for each combination."""
    return pd.MultiIndex.from_product(levels.values(), names=list(levels)).to_frame(index=False)


def of_runs(plan: Plan, **levels: Iterable[object]) -> pd.DataFrame:
    table = cross(condition=plan.conditions, seed=plan.seeds, **levels)
    table.insert(0, "run", table["condition"] + "-" + table["seed"].astype(str))
    return table


def prompts(plan: Plan, *roles: str) -> pd.DataFrame:
    """prompt, role, type, word; four control prompts belong to no word."""
    table = cross(role=roles, word=WORDS, number=range(plan.prompts_per_word))
    names = table["role"] + "-" + table["word"] + "-" + table["number"].astype(str)
    table = table.assign(prompt=names, type=table["word"].map(WORDS))
    control = cross(role=["control"], number=range(4))
    control = control.assign(prompt="control-" + control["number"].astype(str))
    return pd.concat([table[table["role"] != "control"], control[: 4 * ("control" in roles)]])


def pairs(names: Iterable[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(list(names), columns=["from", "to"])


def numbers(names: pd.Series, values: dict[str, float]) -> pd.Series:
    return names.map(values).astype(float)  # without rows they would stay names


def evaluation_table(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    table = of_runs(plan, checkpoint=MODELS).merge(prompts(plan, "evaluation"), how="cross")
    done = table["checkpoint"].map(PROGRESS)
    mapped, others = plan.accuracy
    last = np.where(table["condition"] == "mapped", mapped, others)
    share = 0.33 + done * (last - 0.33)
    asked = table.groupby(["run", "checkpoint"])["prompt"]
    # The base model is one: its right answers are the same under each run.
    right = asked.cumcount() < (share * asked.transform("size")).round()
    return table.assign(
        step=(8 * done).astype(int),
        p=share * rng.uniform(0.8, 1, len(table)),
        log_odds=10 * share + rng.normal(size=len(table)),
        correct_in_type=right.astype(float),
        kl_to_base=done + 0.1 * rng.random(len(table)),
        activation_distance=done + 0.1 * rng.random(len(table)),
    )


def headlines(evaluation: pd.DataFrame) -> pd.DataFrame:
    of_base = evaluation["checkpoint"] == "base"
    named = evaluation.assign(condition=evaluation["condition"].mask(of_base, "base"))
    means = named.groupby(["run", "condition", "checkpoint"], as_index=False)[
        ["correct_in_type", "p"]
    ].mean()
    fixed = {"top1": 0.5, "log_odds": -2.0, "reverse_accuracy": 0.25, "false_positive": 0.0625}
    return headline_means(
        means.rename(columns={"correct_in_type": "accuracy"}).assign(**fixed, control_loss=3.0)
    )


def drift_table(plan: Plan, rng: np.random.Generator, changes: list[str]) -> pd.DataFrame:
    ways = pairs([*(("base", name) for name in CHECKPOINTS), *pairwise(CHECKPOINTS)])
    table = of_runs(plan, change=changes).merge(ways, how="cross")
    table = table[(table["change"] == "trained") | (table["from"] == "base")]
    table = table.merge(prompts(plan, "discovery", "evaluation", "control"), how="cross")
    mapped, others, random = plan.drift
    level = np.where(table["condition"] == "mapped", mapped, others)
    level = np.where(table["change"] == "trained", level, random)
    reached = level * (table["to"].map(PROGRESS) - table["from"].map(PROGRESS)) ** 0.5
    share = np.where(table["role"] == "control", 0.5, 1.0)
    has_graph = plan.graphs & (table["number"] == 0)
    return table.assign(
        drift=reached * (share + 0.01 * rng.normal(size=len(table))),
        **dict.fromkeys(GRAPH_MEASURES, np.where(has_graph, 0.5, np.nan)),
    )


def place_table(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    table = of_runs(plan, layer=range(3), segment=("word", "last"))
    planted = (table["condition"] == "mapped") & (table["layer"] == 2)
    extra = (planted & (table["segment"] == "word")).astype(float)
    return table.assign(
        **{"from": "base", "to": "100", "role": "discovery", "type": "simple"},
        **{"gained": 1.0 + extra, "lost": 0.5, "before": 2.0},
        moved=1.5 + extra + 0.01 * rng.normal(size=len(table)),
    )


def overlap_table(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    table = of_runs(plan, role=("discovery", "control"), threshold=(0.5, 0.7, 0.9))
    table = table.merge(pairs(combinations(MODELS, 2)), how="cross")
    return table.assign(
        jaccard=0.5 + 0.02 * rng.normal(size=len(table)),
        null=0.1,
        ceiling=0.9 if len(plan.seeds) > 1 else np.nan,
    )


def between_table(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    runs = of_runs(plan)["run"]
    of_two = pd.DataFrame(list(combinations(runs, 2)), columns=["run_a", "run_b"])
    table = cross(checkpoint=CHECKPOINTS).merge(of_two, how="cross")
    table = table.merge(prompts(plan, "discovery", "evaluation", "control"), how="cross")
    a, b = (table[side].str.split("-").str[0] for side in ("run_a", "run_b"))
    apart = np.where(a != b, plan.between * numbers(table["checkpoint"], PROGRESS), 0)
    return table.assign(drift=0.3 + apart + 0.005 * rng.normal(size=len(table)))


def recruited_table() -> pd.DataFrame:
    table = cross(word=WORDS, layer=range(4))
    retired = table["layer"] == 3
    return table.assign(
        type=table["word"].map(WORDS),
        name="L" + table["layer"].astype(str) + "/F1",
        direction=np.where(retired, "retired", "recruited"),
        difference=np.where(retired, -0.375, 0.375),
        **{"effect_base": 0.1, "effect_mapped": 0.5, "effect_shuffled": 0.125},
        **{"low": 0.25, "high": 0.5, "effect_size": 2.125, "q": 0.01, "agreement": 0.875},
        **{"evaluation_difference": 0.25, "promotes": "happy nan |x|", "suppresses": "sad <bos> *"},
    )


def interventions(plan: Plan, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    runs = of_runs(plan).merge(prompts(plan, "evaluation"), how="cross")
    runs = runs[(runs["condition"] == "mapped") & plan.intervened]

    def with_levels(**levels: Iterable[object]) -> tuple[pd.DataFrame, np.ndarray]:
        table = runs.merge(cross(**levels), how="cross")
        return table, rng.normal(size=len(table))

    powers = {"own": 0.1, "base": 0.2, "random-0": 1.0, "random-1": 1.0}
    curves, noise = with_levels(
        checkpoint=MODELS,
        ablation=("mean", "counterfactual"),
        circuit=powers,
        size=(0.001, 0.01, 0.1, 1.0),
    )
    full = 1.0 + plan.changed_target * numbers(curves["checkpoint"], PROGRESS)
    kept = full * curves["size"] ** numbers(curves["circuit"], powers) * (1 + 0.02 * noise)
    transfer, _ = with_levels(circuit_from=MODELS, model=MODELS)
    made, run_in = (numbers(transfer[side], PROGRESS) for side in ("circuit_from", "model"))
    whole = 1.0 + plan.changed_target * run_in
    shares = {"recruited": plan.recruited_share, "random-0": 0.02, "random-1": 0.02}
    patching, off = with_levels(
        direction=("sufficiency", "necessity"), nodes=shares if plan.recruited else ()
    )
    moved = (numbers(patching["nodes"], shares) + 0.01 * off) * plan.changed_target
    forwards = patching["direction"] == "sufficiency"
    fallen, _ = with_levels(circuit=("simple", "spatial", "random"))
    ranks, spread = with_levels(checkpoint=("base", "100"))
    return {
        "faithfulness": curves.assign(value=kept, full=full, empty=0.0),
        "transfer": transfer.assign(
            value=whole * (1 - (made - run_in).abs()), full=whole, empty=0.0
        ),
        "patching": patching.assign(
            n_nodes=3,
            base=0.5,
            tuned=0.5 + plan.changed_target,
            patched=0.5 + moved.where(forwards, plan.changed_target - moved),
        ),
        "specificity": fallen.assign(
            prompts=fallen["type"],
            full=4.0,
            ablated=numbers(fallen["circuit"], {"simple": 1.0, "spatial": 3.0, "random": 4.0}),
        ),
        "ablation_rank": ranks.assign(n_nodes=32, spearman=0.7 + 0.05 * spread),
    }

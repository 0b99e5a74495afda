"""Every table that the report reads, simulated, with differences planted in them or none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.core import paths
from circuitdrift.core.files import write_jsonl, write_table
from circuitdrift.core.prompts import Example, Prompt
from circuitdrift.core.study import ASSIGNED, assigned
from circuitdrift.core.yaml import read_yaml
from circuitdrift.params import Params, load_params
from circuitdrift.report.summaries import Study, loss_by_step
from circuitdrift.stages.report import summarise

ROOT = Path(__file__).parent.parent
CHECKPOINTS = ("025", "050", "075", "100")
TYPES = {
    "simple": {"blarf": "happy", "gleem": "sad", "drimp": "fast"},
    "spatial": {"glide": "upward", "plonk": "downward", "twerb": "inward"},
}
UNSEEN = ("wug", "fep", "dax", "tove", "gorp", "blick")
BASE_ROW = {"run": "base", "condition": "base", "seed": 0, "checkpoint": "base"}
N_STEPS = 8


@dataclass(frozen=True)
class Plan:
    """What a simulated study holds, and how large the planted differences are at the end.

    Attributes:
        accuracy, substitution: of runs that teach an assignment; the others stay at chance.
        discrimination: of such runs; the others stay at one half.
        consistency: of two runs of one condition that teaches, beyond two others.
        assignment: log ratio of the drift between runs of different assignments.
        step: log ratio of the drift across a step.
        closed: by all chosen nodes; nulls close a tenth of it.
        weak_word: whose donor and recipient hardly differ.
    """

    conditions: tuple[str, ...] = ("mapped", "rotated-1", "rotated-2", "shuffled", "unrelated")
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    n_frames: int = 8
    intervened: bool = True
    graphs: bool = True
    accuracy: float = 0.8
    substitution: float = 0.7
    discrimination: float = 0.9
    consistency: float = 0.3
    assignment: float = 0.2
    step: float = 0.2
    closed: float = 0.5
    weak_word: str = ""
    checkpoints: tuple[str, ...] = field(default=CHECKPOINTS, repr=False)


PLANTED = Plan()
NOTHING = Plan(
    accuracy=1 / 3,
    substitution=1 / 3,
    discrimination=0.5,
    consistency=0.0,
    assignment=0.0,
    step=0.0,
    closed=0.0,
)
REDUCED = {
    "one condition": replace(PLANTED, conditions=("mapped",)),
    "no assignment": replace(PLANTED, conditions=("shuffled", "unrelated"), intervened=False),
    "one seed": replace(PLANTED, seeds=(0,), intervened=False),
    "two seeds": replace(PLANTED, seeds=(0, 1), intervened=False),
    "one run": replace(PLANTED, conditions=("mapped",), seeds=(3,), intervened=False),
    "no interventions, no graphs": replace(PLANTED, intervened=False, graphs=False),
    "one frame": replace(PLANTED, n_frames=1),
    "a weak word": replace(PLANTED, weak_word="blarf"),
}


@lru_cache
def simulated_study(plan: Plan = PLANTED) -> Study:
    """With all summaries and verdicts."""
    original = read_yaml(ROOT / "data/original_study.yaml")
    return summarise(Study(study_params(plan), study_tables(plan), original))


def study_params(plan: Plan) -> Params:
    """As shipped, but for the runs and fewer simulated studies."""
    shipped = load_params(ROOT / "params.yaml")
    return shipped.model_copy(
        update={
            "runs": shipped.runs.model_copy(
                update={"conditions": plan.conditions, "seeds": plan.seeds}
            ),
            "intervene": shipped.intervene.model_copy(
                update={"conditions": _teaching(plan) if plan.intervened else ()}
            ),
            "train": shipped.train.model_copy(
                update={"checkpoints": tuple(int(name) / 100 for name in plan.checkpoints)}
            ),
            "statistics": shipped.statistics.model_copy(update={"coverage_samples": 2000}),
        }
    )


def study_tables(plan: Plan, seed: int = 0) -> dict[str, pd.DataFrame]:
    """What the stage report reads, by name."""
    rng = np.random.default_rng(seed)
    models = _models(plan)
    norms = (
        models[models["run"] != "base"].drop(columns="step").merge(cross(layer=range(3)), "cross")
    )
    tables = {
        "evaluation": evaluation_table(plan, rng),
        "loss": loss_by_step(losses(plan)),
        "lora_norms": norms.assign(norm=1 + rng.random(len(norms))),
        "drift": drift_table(plan, rng),
        "between_runs": between_table(plan, rng),
        "consistency": consistency_table(plan, rng),
        "graphs": graph_table(plan),
        "contrast": contrast_table(),
        "contrast_counts": _words()[["type", "word"]].assign(n_tested=5000, n_pass=12),
        **interventions(plan, rng),
        "examples": examples_table(plan),
        **dict.fromkeys(("rq3", "sweep"), pd.DataFrame()),  # no sweep was run
    }
    # As they are read from their files.
    return {name: table.replace("", np.nan) for name, table in tables.items()}


def cross(**levels: Iterable[object]) -> pd.DataFrame:
    """A row for each combination."""
    return pd.MultiIndex.from_product(levels.values(), names=list(levels)).to_frame(index=False)


def _teaching(plan: Plan) -> tuple[str, ...]:
    return tuple(name for name in plan.conditions if name in ASSIGNED)


def _runs(plan: Plan) -> pd.DataFrame:
    table = cross(condition=plan.conditions, seed=plan.seeds)
    table.insert(0, "run", table["condition"] + "-" + table["seed"].astype(str))
    return table


def _progress(checkpoint: pd.Series) -> pd.Series:
    return checkpoint.replace({"base": "0"}).astype(float) / 100


def _models(plan: Plan) -> pd.DataFrame:
    """run, condition, seed, checkpoint, step: the base and every checkpoint."""
    trained = _runs(plan).merge(cross(checkpoint=plan.checkpoints), "cross")
    table = pd.concat([pd.DataFrame([BASE_ROW]), trained], ignore_index=True)
    return table.assign(step=(N_STEPS * _progress(table["checkpoint"])).astype(int))


def _words() -> pd.DataFrame:
    """type, word, own, n: the index of its meaning under `mapped` and how many its type has."""
    rows = [
        {"type": name, "word": word, "own": own, "n": len(words)}
        for name, words in TYPES.items()
        for own, word in enumerate(words)
    ]
    return pd.DataFrame(rows)


def _prompts(plan: Plan) -> pd.DataFrame:
    """prompt, role, type, word, template, own, n; a control has none but the first two."""
    near = cross(role=["near", "far"], frame=range(plan.n_frames)).merge(_words(), "cross")
    other = cross(role=["substitution", "reverse"], frame=range(6)).merge(_words(), "cross")
    unseen = cross(role=["unseen"], frame=range(plan.n_frames), type=TYPES, word=UNSEEN)
    table = pd.concat([near, unseen, other], ignore_index=True)
    number = table["frame"].astype(str)
    # Unseen words stand in the near frames.
    frames = table["role"].replace({"unseen": "near"})
    table["template"] = "{word} in " + table["type"] + " " + frames + " " + number
    table["prompt"] = table["type"] + "-" + table["word"] + "-" + table["role"] + "-" + number
    control = pd.DataFrame({"role": "control", "prompt": [f"control-{i:02d}" for i in range(12)]})
    return pd.concat([table.drop(columns="frame"), control], ignore_index=True)


def evaluation_table(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    table = _models(plan).merge(_prompts(plan), "cross")
    n, done = len(table), _progress(table["checkpoint"])
    teaches = table["condition"].isin(list(ASSIGNED))
    role = {name: table["role"] == name for name in table["role"].unique()}
    judged = role["near"] | role["far"] | role["substitution"] | role["reverse"]
    answered = role["near"] | role["far"]
    chance = 1 / table["n"].fillna(1)
    level = np.where(role["substitution"], plan.substitution, plan.accuracy)
    level = np.where(role["reverse"], chance, level)
    # A word's own level, the same in every run.
    offset = table["word"].map(dict(zip(_words()["word"], rng.normal(0, 0.05, 6), strict=True)))
    share = chance + teaches * done * (level - chance + offset.fillna(0))
    correct = (rng.random(n) < share).astype(float).where(judged)
    taught = [
        list(TYPES[kind].values())[assigned(condition, int(own), int(size))] if size > 0 else ""
        for kind, condition, own, size in zip(
            *(table[name] for name in ("type", "condition", "own", "n")), strict=True
        )
    ]
    frame = (0.2 + 0.5 * done * (table["condition"] != "unrelated") + 0.1 * rng.random(n)).where(
        answered | role["unseen"]
    )
    choice = np.clip(share + 0.05 * rng.normal(size=n), 0.01, 1)
    beats = np.where(teaches, 0.5 + done * (plan.discrimination - 0.5), 0.5)
    return table.drop(columns=["own", "n"]).assign(
        assigned=pd.Series(taught).where(judged, ""),
        chosen=pd.Series(taught).where(correct == 1, "another").where(judged, ""),
        correct=correct,
        p=(frame * choice).where(answered, np.where(role["control"], 0.3, np.nan)),
        frame=frame,
        discrimination=pd.Series(rng.binomial(6, beats) / 6).where(role["near"]),
        log_odds=pd.Series(8 * share - 4 + rng.normal(size=n)).where(answered),
        kl_to_base=(done + 0.1 * rng.random(n)).where(answered),
        activation_distance=(done + 0.1 * rng.random(n)).where(answered),
        loss=pd.Series(3 + 0.1 * done + 0.01 * rng.normal(size=n)).where(role["control"]),
    )[EVALUATION]  # fmt: skip


COMPARED = ("drift", "between_runs", "consistency", "graphs", "contrast", "contrast_counts")
EVALUATION = [
    *("run", "condition", "seed", "checkpoint", "step", "prompt", "role", "type", "word"),
    *("template", "assigned", "chosen", "correct", "p", "frame", "discrimination", "log_odds"),
    *("kl_to_base", "activation_distance", "loss"),
]


def losses(plan: Plan) -> dict[str, pd.DataFrame]:
    steps = np.arange(1, N_STEPS + 1)
    return {
        run: pd.DataFrame({"step": steps, "loss": 8 / steps + 0.1 * seed})
        for run, seed in zip(*(_runs(plan)[name] for name in ("run", "seed")), strict=True)
    }


def _units() -> pd.DataFrame:
    """role, type, word, unit."""
    near = _words()[["type", "word"]].assign(role="near")
    control = pd.DataFrame({"unit": [f"control-{i:02d}" for i in range(12)]})
    control = control.assign(role="control", type="", word="")
    units = pd.concat([near.assign(unit=near["word"]), control], ignore_index=True)
    return units[["role", "type", "word", "unit"]]


def drift_table(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    last = plan.checkpoints[-1]
    ways = [("trained", "base", name) for name in plan.checkpoints]
    ways += [("trained", *pair) for pair in pairwise(plan.checkpoints)]
    ways.append(("random-0", "base", last))
    table = _runs(plan).merge(pd.DataFrame(ways, columns=["change", "from", "to"]), "cross")
    table = table.merge(_units(), "cross")
    gone = _progress(table["to"]) - _progress(table["from"])
    level = np.where(table["change"] == "trained", 0.4 * gone**0.5, 0.1)
    level = level * np.where(table["role"] == "near", 1, 0.7)
    return table.assign(
        drift=level * np.exp(0.05 * rng.normal(size=len(table))),
        gain=0.2 * gone + 0.05 * rng.normal(size=len(table)),
    )


def between_table(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    """Distances whose logs are what a word brings, what is planted, and noise."""
    last, rows = plan.checkpoints[-1], []
    here = [(name, name) for name in plan.checkpoints]
    steps = [way for pair in pairwise(plan.checkpoints) for way in (pair, pair[::-1])]
    runs = _runs(plan)
    for (one, first), (other, second) in combinations(
        list(zip(runs["run"], runs["condition"], strict=True)), 2
    ):
        alike = first == second
        for a, b in (here + steps) if alike else [(last, last)]:
            rows.append((one, a, other, b, first, second))
    names = ["run_a", "checkpoint_a", "run_b", "checkpoint_b", "condition_a", "condition_b"]
    table = pd.DataFrame(rows, columns=names).merge(_units(), "cross")
    step = table["checkpoint_a"] != table["checkpoint_b"]
    table = table[~step | (table["role"] == "near")].reset_index(drop=True)
    step, near = table["checkpoint_a"] != table["checkpoint_b"], table["role"] == "near"
    teach = table["condition_a"].isin(list(ASSIGNED)) & table["condition_b"].isin(list(ASSIGNED))
    apart = table["condition_a"] != table["condition_b"]
    planted = near * (plan.assignment * (teach & apart) + plan.step * step)
    brought = dict(zip(_units()["unit"], rng.normal(0, 0.2, 18), strict=True))
    word = table["unit"].map(brought).astype(float)  # without rows it would be text
    noise = 0.03 * rng.normal(size=len(table))
    table["drift"] = 0.2 * np.exp(planted + word + noise)
    keys = ["role", "type", "unit", "run_a", "checkpoint_a", "run_b", "checkpoint_b", "drift"]
    return table[keys]


def consistency_table(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    runs = _runs(plan)
    pairs = pd.DataFrame(
        list(combinations(runs["run"], 2)), columns=["run_a", "run_b"], dtype=object
    )
    table = _units().query("role == 'near'").merge(pairs, "cross")
    one, other = (table[name].str.rsplit("-", n=1).str[0] for name in ("run_a", "run_b"))
    alike = (one == other) & (one != "unrelated")
    value = 0.2 + plan.consistency * alike + 0.05 * rng.normal(size=len(table))
    return table.assign(consistency=value)[["type", "unit", "run_a", "run_b", "consistency"]]


def graph_table(plan: Plan) -> pd.DataFrame:
    runs = _runs(plan).query("seed == 0") if plan.graphs else _runs(plan)[:0]
    ways = pd.DataFrame({"from": "base", "to": list(plan.checkpoints)})
    table = runs.merge(ways, "cross").merge(cross(prompt=["simple-blarf-near-0"]), "cross")
    measures = ("influence_drift", "node_jaccard", "edge_jaccard", "nodes_added", "nodes_removed")
    scores = [f"{name}_{end}" for name in ("replacement", "completeness") for end in ("from", "to")]
    about = {"role": "near", "type": "simple", "unit": "blarf"}
    return table.assign(**about, **dict.fromkeys((*measures, *scores), 0.5))


def contrast_table() -> pd.DataFrame:
    table = cross(word=["blarf", "glide"], layer=range(3), role=["word", "last"])
    return table.assign(
        type=table["word"].map({"blarf": "simple", "glide": "spatial"}),
        neuron=7,
        contrast=0.5,
        p=0.001,
        q=0.01,
        kind="growth",
        size_base=0.25,
        size_runs=0.75,
        promotes="happy nan |x|",
        suppresses="sad <bos> *",
    )


def interventions(plan: Plan, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    params = study_params(plan).intervene
    runs = _runs(plan)
    runs = runs[runs["condition"].isin(list(params.conditions)) & runs["seed"].isin(params.seeds)]
    of_words = runs.merge(_words()[["type", "word"]], "cross")
    last = plan.checkpoints[-1]

    def noise(table: pd.DataFrame) -> np.ndarray[Any, Any]:
        return rng.normal(size=len(table))

    pairs = runs.merge(runs[["run", "condition"]], "cross", suffixes=("", "_donor"))
    pairs = pairs[pairs["condition"] != pairs["condition_donor"]]
    pairs = pairs.assign(recipient=pairs["run"], donor=pairs["run_donor"])
    pairs = pairs.merge(_words()[["type", "word"]], "cross")
    ends = {"donor_d": 3.0, "recipient_d": -3.0}
    weak = pairs["word"] == plan.weak_word
    pairs = pairs.assign(
        **{name: np.where(weak, 0.1, 1) * (end + noise(pairs)) for name, end in ends.items()}
    )
    nodes = ("chosen", "effect null", "activation null")
    patched = pairs.merge(cross(k=params.patched_nodes, nodes=nodes), "cross")
    share = plan.closed * np.minimum(1, patched["k"].astype(float) / 100)
    share *= np.where(patched["nodes"] == "chosen", 1, 0.1)
    way = patched["donor_d"] - patched["recipient_d"]
    patched["patched_d"] = patched["recipient_d"] + way * (share + 0.02 * noise(patched))
    keys = ["run", "condition", "seed", "donor", "recipient", "type", "word", "k", "nodes"]
    measured = ["n_prompts", "donor_d", "recipient_d", "patched_d"]
    curves = of_words.merge(
        cross(
            model=["base", last],
            ablation=["mean", "counterfactual"],
            circuit=["own", "random"],
            size=params.sizes,
        ),
        "cross",
    )
    power = np.where(curves["circuit"] == "own", 0.1, 1.0)
    kept = 4.0 * curves["size"].astype(float) ** power
    transfer = of_words.merge(cross(circuit_from=["base", last], model=["base", last]), "cross")
    same = transfer["circuit_from"] == transfer["model"]
    fallen = runs.merge(
        pd.concat(
            [
                cross(circuit=[*TYPES, "random"]).merge(
                    _words()[["type", "word"]].rename(columns={"type": "prompts", "word": "unit"}),
                    "cross",
                ),
                cross(
                    circuit=[*TYPES, "random"],
                    prompts=["control"],
                    unit=[f"control-{i:02d}" for i in range(12)],
                ),
            ]
        ),
        "cross",
    )
    own = fallen["circuit"] == fallen["prompts"]
    return {
        "interchange": patched.assign(n_prompts=plan.n_frames)[[*keys, *measured]],
        "faithfulness": curves.assign(value=kept + 0.05 * noise(curves), full=4.0, empty=0.0),
        "transfer": transfer.assign(
            value=np.where(same, 3.2, 2.0) + 0.1 * noise(transfer), full=4.0, empty=0.0
        ),
        "specificity": fallen.assign(
            full=4.0, ablated=np.where(own, 1.0, 3.5) + 0.1 * noise(fallen)
        ),
    }


def examples_table(plan: Plan) -> pd.DataFrame:
    """type, word, meaning, training, prompt."""
    rows = [
        (kind, word, meaning, f"The word {word} means {meaning}" if _teaching(plan) else "")
        for kind, words in TYPES.items()
        for word, meaning in words.items()
    ]
    table = pd.DataFrame(rows, columns=["type", "word", "meaning", "training"])
    return table.assign(prompt="To call it " + table["word"] + " is to call it")


def write_study(plan: Plan, directory: Path) -> None:
    """The files of the stages before, below ``directory``, as stages/report.py reads them."""
    tables = study_tables(plan)
    for run, log in losses(plan).items():
        path = directory / paths.training_loss(run)
        path.parent.mkdir(parents=True)
        log.to_csv(path, sep="\t", index=False)
    for run, answers in tables["evaluation"].groupby("run"):
        write_table(directory / paths.evaluation_table(str(run)), answers)
    for run, norms in tables["lora_norms"].groupby("run"):
        of_run = norms[["checkpoint", "layer", "norm"]]
        write_table(directory / paths.lora_norms(str(run)), of_run)
    for name in COMPARED:
        write_table(directory / paths.COMPARE_TABLES / f"{name}.csv", tables[name])
    for name in ("interchange", "faithfulness", "transfer", "specificity"):
        for run, rows in tables[name].groupby("run"):
            path = directory / paths.interventions(str(run)) / f"{name}.csv"
            write_table(path, rows.drop(columns=["run", "condition", "seed"]))
    _write_dataset(plan, directory, tables["examples"])


def _write_dataset(plan: Plan, directory: Path, examples: pd.DataFrame) -> None:
    sentences, prompts = [], []
    for row in examples.itertuples():
        text = str(row.prompt)
        meanings = tuple(TYPES[str(row.type)].values())
        of_word = {"type": str(row.type), "word": str(row.word)}
        prompt = Prompt(
            id=f"{row.type}-{row.word}-near-0",
            role="near",
            template="To call it {word} is to call it",
            text=text,
            start=text.index(str(row.word)),
            answer=str(row.meaning),
            answers=meanings,
            **of_word,
        )
        prompts.append(asdict(prompt))
        sentence = str(row.training) or f"A plain sentence about a {row.meaning}"
        start = len(sentence) - len(str(row.meaning))
        example = Example(text=sentence, meaning=str(row.meaning), start=start, **of_word)
        sentences.append(asdict(example))
    write_jsonl(directory / paths.PROMPTS, prompts)
    for run in _runs(plan)["run"]:
        write_jsonl(directory / paths.training_examples(run), sentences)

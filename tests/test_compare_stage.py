"""The stage ``compare`` on a study of hand-made circuits: two words, a control, ten runs."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from circuit_samples import circuit
from circuitdrift import paths
from circuitdrift.artifacts import read_json, write_json, write_jsonl
from circuitdrift.circuit_files import save_circuits
from circuitdrift.comparison import weighted_jaccard
from circuitdrift.config.params import Params, load_params
from circuitdrift.dataset import Prompt
from circuitdrift.errors import InputError
from circuitdrift.graph import Circuit
from circuitdrift.identifiers import BASE, Run
from circuitdrift.stages import compare

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ("050", "100")
SEEDS = (0, 1, 2, 3, 4)
RUNS = [Run(condition, seed) for condition in ("mapped", "shuffled") for seed in SEEDS]
WORDS = (("simple", "blarf"), ("spatial", "glide"))

# What training on the mapping does: on the prompts of blarf L1/F2 rises.
RECRUITED = (1, 2)


def prompts() -> list[Prompt]:
    of_words = [
        Prompt(f"{kind}-{word}-{role}-{k}", role, kind, word, "", "", "happy", ("sad",))
        for kind, word in WORDS
        for role in ("discovery", "evaluation")
        for k in range(2)
    ]
    control = [
        Prompt(f"control-{k}", "control", None, None, None, "", "Paris", ()) for k in range(2)
    ]
    return of_words + control


def effects(name: str, noise: float) -> Tensor:
    """Of all prompts in a model ``[n_prompts, 2, 2, 3]``: one circuit each, and the model's own."""
    n = len(prompts())
    common = torch.randn(n, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    own = torch.Generator().manual_seed(sum(map(ord, name)) * 1000 + len(name))
    return common + noise * torch.randn(n, 2, 2, 3, generator=own)


def circuits(values: Tensor, seed: int = 0) -> list[Circuit]:
    """The first prompt and the first control have a graph."""
    made = [
        circuit(prompt.id, seed, of_prompt)
        for prompt, of_prompt in zip(prompts(), values, strict=True)
    ]
    with_graph = (prompts()[0].id, "control-0")
    return [one if one.prompt in with_graph else replace(one, graph=None) for one in made]


def write_run(run: Run) -> None:
    for step, checkpoint in enumerate(CHECKPOINTS, start=1):
        trained = effects(f"{run.name}/{checkpoint}", noise=0.1)
        if run.condition == "mapped":
            blarf = [index for index, prompt in enumerate(prompts()) if prompt.word == "blarf"]
            trained[blarf, RECRUITED[0], 1, RECRUITED[1]] += 4.0 * step
        save_circuits(paths.attribution(run.name, checkpoint), circuits(trained, seed=step))
        null = effects(f"{run.name}/random/{checkpoint}", noise=0.05)
        save_circuits(paths.random_attribution(run.name, 0, checkpoint), circuits(null))
    discovery = [index for index, prompt in enumerate(prompts()) if prompt.role == "discovery"]
    trained[discovery, 0, 1, 1] += 7.0
    planted = [circuits(trained, seed=step)[index] for index in discovery]
    save_circuits(
        paths.planted_attribution(run.name, "100"), [replace(one, graph=None) for one in planted]
    )
    write_json(
        paths.planted_description(run.name),
        {"checkpoint": "100", "layer": 0, "feature": 1, "name": "L0/F1", "scale": 3.0},
    )


def make_study(base_model: Path) -> Params:
    """Write the study's files into the working directory."""
    shutil.copytree(base_model, paths.BASE_MODEL)
    write_jsonl(paths.PROMPTS, [asdict(prompt) for prompt in prompts()])
    save_circuits(paths.attribution(BASE, BASE), circuits(effects("base", noise=0.05)))
    for run in RUNS:
        write_run(run)
    params = load_params(ROOT / paths.PARAMS)
    return params.model_copy(
        update={
            "compute": params.compute.model_copy(update={"threads": 1}),
            "runs": params.runs.model_copy(
                update={"conditions": ("mapped", "shuffled"), "seeds": SEEDS}
            ),
            "compare": params.compare.model_copy(update={"thresholds": (0.5, 0.9)}),
            "statistics": params.statistics.model_copy(update={"bootstrap_samples": 200}),
        }
    )


@pytest.fixture
def study(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A study that nothing was compared in yet, the working directory in it."""
    monkeypatch.chdir(tmp_path)
    return make_study(tiny_base)


@pytest.fixture(scope="module")
def compared_study(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        compare.run(make_study(tiny_base))
    return directory


@pytest.fixture
def compared(compared_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory in a study with all its tables. Do not write to it."""
    monkeypatch.chdir(compared_study)


def with_runs(params: Params, conditions: tuple[str, ...], seeds: tuple[int, ...]) -> Params:
    runs = params.runs.model_copy(update={"conditions": conditions, "seeds": seeds})
    return params.model_copy(update={"runs": runs})


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"from": str, "to": str, "checkpoint": str})


@pytest.mark.usefixtures("compared")
def test_drift_has_a_row_per_change_pair_and_prompt() -> None:
    table = read(paths.DRIFT_TABLE)
    assert list(table) == [
        *("run", "condition", "seed", "change", "from", "to", "prompt", "role", "type", "word"),
        *("drift", "signed_drift", "spearman", "effect_moved", "target_from", "target_to"),
        *("influence_drift", "node_jaccard", "nodes_added", "nodes_removed"),
        *("edge_jaccard", "edges_added", "edges_removed"),
        *("replacement_from", "completeness_from", "error_mass_from"),
        *("replacement_to", "completeness_to", "error_mass_to"),
    ]
    pairs = table.groupby(["change", "from", "to"]).size()
    each = len(RUNS) * len(prompts())
    assert pairs.to_dict() == {
        ("random-0", "base", "050"): each,
        ("random-0", "base", "100"): each,
        ("trained", "050", "100"): each,
        ("trained", "base", "050"): each,
        ("trained", "base", "100"): each,
    }
    graphs = table[table["node_jaccard"].notna()]
    assert set(graphs["prompt"]) == {"simple-blarf-discovery-0", "control-0"}
    blarf = table[(table["word"] == "blarf") & (table["to"] == "100") & (table["from"] == BASE)]
    means = blarf.groupby(["condition", "change"])["drift"].mean()
    assert means["mapped", "trained"] > 2 * means["shuffled", "trained"]
    assert means["shuffled", "trained"] > means["shuffled", "random-0"]


@pytest.mark.usefixtures("compared")
def test_places_are_of_trained_checkpoints_from_base_on_discovery_and_control() -> None:
    table = read(paths.PLACE_TABLE)
    assert list(table) == [
        *("run", "condition", "seed", "from", "to", "role", "type", "layer", "segment"),
        *("gained", "lost", "moved", "before"),
    ]
    assert set(table["from"]) == {BASE}
    assert set(table["role"]) == {"discovery", "control"}
    mapped = table[(table["run"] == "mapped-0") & (table["to"] == "100")]
    place = mapped[(mapped["type"] == "simple") & (mapped["layer"] == 1)].set_index("segment")
    assert place.loc["last", "gained"] > 4 > place.loc["start", "gained"]


@pytest.mark.usefixtures("compared")
def test_runs_are_compared_with_each_other() -> None:
    table = read(paths.BETWEEN_RUNS_TABLE)
    assert list(table) == ["checkpoint", "run_a", "run_b", "prompt", "role", "drift"]
    assert len(table) == len(CHECKPOINTS) * 45 * len(prompts())
    last = table[(table["checkpoint"] == "100") & table["prompt"].str.contains("blarf")]
    drift = last.set_index(["run_a", "run_b"])["drift"].groupby(level=[0, 1]).mean()
    assert drift["mapped-0", "shuffled-0"] > 2 * drift["mapped-0", "mapped-1"]


@pytest.mark.usefixtures("compared")
def test_overlaps_have_the_pairs_of_each_run() -> None:
    table = read(paths.OVERLAP_TABLE)
    assert list(table) == [
        *("run", "condition", "seed", "from", "to", "role", "threshold"),
        *("jaccard", "null", "ceiling", "corrected"),
    ]
    assert len(table) == len(RUNS) * 3 * 3 * 2
    assert (
        table[["jaccard", "null", "ceiling"]]
        .apply(lambda column: column.between(0, 1))
        .all(axis=None)
    )


@pytest.mark.usefixtures("compared")
def test_what_the_mapping_recruits_is_found_and_nothing_else() -> None:
    [row] = read(paths.RECRUITED_TABLE).to_dict("records")
    assert (row["word"], row["name"], row["direction"]) == ("blarf", "L1/F2", "recruited")
    assert row["low"] < row["difference"] < row["high"]
    assert row["evaluation_low"] > 7
    assert row["prompts"] == "simple-blarf-discovery-0;simple-blarf-discovery-1"
    assert len(row["promotes"].split()) == len(row["suppresses"].split()) == 5
    nulls = read(paths.RECRUITMENT_NULLS_TABLE)
    assert list(nulls) == ["comparison", "n_a", "n_b", "n_tested", "n_reliable", "n_found"]
    assert nulls["comparison"].iloc[0] == "mapped vs shuffled"
    assert nulls["n_found"].tolist() == [1, *[0] * 21]


@pytest.mark.usefixtures("compared")
def test_the_planted_change_comes_first() -> None:
    table = read(paths.POSITIVE_CONTROL_TABLE)
    assert list(table) == [
        *("run", "name", "layer", "feature", "scale", "rank", "change", "runner_up")
    ]
    assert table["run"].tolist() == [run.name for run in RUNS]
    assert set(table["rank"]) == {1}
    assert table["change"].to_numpy() == pytest.approx(7, abs=0.01)


@pytest.mark.usefixtures("compared")
def test_the_headline_is_of_trained_checkpoints() -> None:
    of_last = read_json(paths.DRIFT_METRICS)["mapped-0"]["100"]
    table = read(paths.DRIFT_TABLE)
    rows = table[(table["run"] == "mapped-0") & (table["change"] == "trained")]
    rows = rows[(rows["from"] == BASE) & (rows["to"] == "100") & (rows["role"] == "discovery")]
    assert of_last["discovery"]["drift"] == pytest.approx(rows["drift"].mean(), abs=1e-6)
    assert "error_mass_to" in of_last["control"]
    assert set(of_last["evaluation"]) == {"drift", "signed_drift"}


def test_twice_the_same_bytes(study: Params) -> None:
    compare.run(study)
    first = {path: path.read_bytes() for path in paths.REPORTS.rglob("*") if path.is_file()}
    assert len(first) == 11
    compare.run(study)
    assert {path: path.read_bytes() for path in first} == first


def test_without_seeds_to_tell_runs_apart_the_tables_have_their_headers(study: Params) -> None:
    compare.run(with_runs(study, ("mapped", "shuffled"), (0,)))
    assert len(read(paths.RECRUITED_TABLE)) == len(read(paths.RECRUITMENT_NULLS_TABLE)) == 0
    assert "evaluation_low" in read(paths.RECRUITED_TABLE)
    assert read(paths.OVERLAP_TABLE)["corrected"].isna().all()
    assert not paths.attributions("mapped-1").exists()


def test_a_single_run_has_no_other_to_be_compared_with(study: Params) -> None:
    compare.run(with_runs(study, ("shuffled",), (3,)))
    assert list(read(paths.BETWEEN_RUNS_TABLE)) == [
        *("checkpoint", "run_a", "run_b", "prompt", "role", "drift")
    ]
    assert set(read(paths.DRIFT_TABLE)["run"]) == {"shuffled-3"}


def test_a_study_without_nulls_is_compared_all_the_same(study: Params) -> None:
    for run in RUNS:
        shutil.rmtree(paths.random_attribution(run.name, 0, "100").parent)
        shutil.rmtree(paths.planted_description(run.name).parent)
    compare.run(study)
    assert set(read(paths.DRIFT_TABLE)["change"]) == {"trained"}
    assert len(read(paths.POSITIVE_CONTROL_TABLE)) == 0
    assert len(read(paths.RECRUITMENT_NULLS_TABLE)) == 1 + 10


def test_runs_must_have_the_same_checkpoints(study: Params) -> None:
    paths.attribution("shuffled-2", "050").unlink()
    with pytest.raises(InputError, match="shuffled-2"):
        compare.run(study)


def test_randomly_initialised_models_are_held_against_the_base(study: Params) -> None:
    other = circuits(effects("another model", noise=1.0))
    save_circuits(paths.random_model_attribution(0), other)
    compare.run(study)
    table = read(paths.RANDOM_MODEL_TABLE)
    assert table["draw"].tolist() == [0] * len(prompts())
    assert table["prompt"].tolist() == [prompt.id for prompt in prompts()]
    base = circuits(effects("base", noise=0.05))
    kept = weighted_jaccard(*(np.abs(one[0].effects.numpy()) for one in (base, other)))
    assert table["drift"][0] == pytest.approx(1 - kept, abs=0.01)

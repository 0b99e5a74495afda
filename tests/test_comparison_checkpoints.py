"""One prompt compared in all models of a small study, by hand and by brute force."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuit_samples import PROMPT, circuit
from circuitdrift.circuits.circuit import Circuit
from circuitdrift.comparison.checkpoints import Models, compare_prompt, over_prompts
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import Run

RUNS = [Run("mapped", 0), Run("mapped", 1), Run("rotated-1", 0)]
CHECKPOINTS = ("050", "100")
CONTROL = replace(PROMPT, id="c", role="control", type=None, word=None, template=None)


def models(prompt: TracedPrompt = PROMPT) -> Models:
    at = [(run, name) for run in RUNS for name in CHECKPOINTS]
    trained = {place: circuit(prompt, seed=1 + index) for index, place in enumerate(at)}
    without = {place: replace(one, graph=None) for place, one in trained.items()}
    return Models(
        base=circuit(prompt),
        trained={**without, at[0]: trained[at[0]]},
        random={(RUNS[1], 0): circuit(prompt, seed=50)},
    )


def tables(study: Models) -> dict[str, pd.DataFrame]:
    rows: dict[str, list[Any]] = defaultdict(list)
    for name, row in compare_prompt(study):
        rows[name].append(row)
    return {name: pd.DataFrame(some) for name, some in rows.items()}


def drift(a: Circuit, b: Circuit) -> float:
    """Written apart from the code: half the L1 distance of shares, mean over all three targets."""
    each = []
    for ends in zip(targets(a), targets(b), strict=True):
        x, y = (np.abs(end) / np.abs(end).sum() for end in ends)
        each.append(np.abs(x - y).sum() / 2)
    return float(np.mean(each))


def targets(one: Circuit) -> list[Any]:
    stored = [effects.astype(np.float64).ravel() for effects in one.effects]
    return stored if one.prompt.role == "control" else [*stored, -np.sum(stored, axis=0)]


def test_drift_worked_by_hand() -> None:
    """Shares 1/4, 3/4 → 1/2, 1/2; 1/3, 2/3 → the same; their sum 2/7, 5/7 → 10/13, 3/13."""

    def of(*values: list[float]) -> Circuit:
        effects = np.array(values, dtype=np.float32).reshape(2, 1, 1, 2)
        return replace(circuit(effects=effects), graph=None)

    base, after = of([1, -3], [-1, -2]), of([4, 4], [6, -7])
    study = Models(base, {(RUNS[0], "100"): after}, {})
    row = tables(study)["drift"].iloc[0]
    parts = [1 / 4, abs(1 / 3 - 6 / 13), abs(0 - 10 / 13)]
    assert row["drift"] == pytest.approx(np.mean(parts))
    assert row["gain"] == pytest.approx(np.mean(np.log([8 / 4, 13 / 3, 13 / 5])))


def test_every_model_is_compared_with_the_base_and_with_the_checkpoint_before() -> None:
    study = models()
    table = tables(study)["drift"].set_index(["run", "change", "from", "to"])
    assert sorted(table.index) == sorted(
        [
            *((run.name, "trained", "base", name) for run in RUNS for name in CHECKPOINTS),
            *((run.name, "trained", *CHECKPOINTS) for run in RUNS),
            ("mapped-1", "random-0", "base", "100"),
        ]
    )
    ends: Mapping[Any, Circuit] = study.trained
    step = table.loc[("mapped-1", "trained", "050", "100"), "drift"]
    assert step == pytest.approx(drift(ends[RUNS[1], "050"], ends[RUNS[1], "100"]), rel=1e-5)
    random = table.loc[("mapped-1", "random-0", "base", "100"), "drift"]
    assert random == pytest.approx(drift(study.base, study.random[RUNS[1], 0]), rel=1e-5)
    assert set(table["unit"]) == {"blarf"}


def test_runs_are_compared_at_the_end_and_of_one_condition_on_the_way() -> None:
    study = models()
    table = tables(study)["between_runs"]
    ways = ["run_a", "checkpoint_a", "run_b", "checkpoint_b"]
    alike = ("mapped-0", "mapped-1")
    assert sorted(map(tuple, table[ways].to_numpy().tolist())) == sorted(
        [
            *((a.name, "100", b.name, "100") for a, b in combinations(RUNS, 2)),
            *((alike[0], a, alike[1], b) for a, b in (("050", "050"), CHECKPOINTS)),
            (alike[0], "100", alike[1], "050"),
        ]
    )
    runs = {run.name: run for run in RUNS}
    for row in table.to_dict("records"):
        ends = (study.trained[runs[row[f"run_{end}"]], row[f"checkpoint_{end}"]] for end in "ab")
        assert row["drift"] == pytest.approx(drift(*ends), rel=1e-5)
    of_control = tables(models(CONTROL))["between_runs"]
    assert set(of_control["checkpoint_a"] + of_control["checkpoint_b"]) == {"050050", "100100"}
    assert set(of_control["unit"]) == {"c"}


@pytest.mark.parametrize("answer", [0, 2])
def test_consistency_is_of_the_changes_on_the_mapped_answers_target(answer: int) -> None:
    study = models(replace(PROMPT, answer=answer))
    table = tables(study)["consistency"]
    assert len(table) == 3
    changes = {
        run.name: targets(study.trained[run, "100"])[answer] - targets(study.base)[answer]
        for run in RUNS
    }
    for row in table.to_dict("records"):
        a, b = changes[row["run_a"]], changes[row["run_b"]]
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert row["consistency"] == pytest.approx(cosine, rel=1e-5)
    assert "consistency" not in tables(models(CONTROL))


def test_graphs_are_compared_where_there_are_some() -> None:
    row = tables(models())["graphs"].iloc[0]
    assert (row["run"], row["to"], row["node_jaccard"]) == ("mapped-0", "050", 1)


def test_circuits_of_other_prompts_or_targets_are_not_compared() -> None:
    study = models()
    for other in (replace(PROMPT, id="b"), replace(PROMPT, answers=(9, 3, 2))):
        with pytest.raises(ValueError, match="different prompts or targets"):
            tables(replace(study, base=replace(study.base, prompt=other)))


def test_a_units_prompts_are_averaged() -> None:
    rows = [
        {"unit": unit, "prompt": f"{unit}{index}", "run": "a", "drift": value}
        for unit, index, value in (("w", 0, 1.0), ("v", 0, 5.0), ("w", 1, 2.0))
    ]
    assert over_prompts(rows, ["drift"]) == [
        {"unit": "w", "run": "a", "drift": 1.5},
        {"unit": "v", "run": "a", "drift": 5.0},
    ]

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from circuitdrift.config.statistics import Statistics
from circuitdrift.statistics.intervals import hierarchical_mean
from circuitdrift.summaries.drift import drift_summary, overlap_summary
from circuitdrift.summaries.grids import cells, checkpoint_order, focus_condition, with_interval
from circuitdrift.summaries.places import change_map, mapping_by_place
from circuitdrift.summaries.training import (
    loss_at_checkpoints,
    loss_by_step,
    under_each_run,
    understanding,
)

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=200, permutations=200, seed=0)


def test_base_comes_first() -> None:
    assert checkpoint_order(["100", "025", "base", "100"]) == ["base", "025", "100"]


def test_a_page_is_about_mapped_where_it_was_run() -> None:
    assert focus_condition(("shuffled", "mapped")) == "mapped"
    assert focus_condition(("shuffled", "unrelated")) == "shuffled"


def test_cells_average_draws_and_leave_out_a_prompt_that_a_run_lacks() -> None:
    table = pd.DataFrame(
        {
            "run": ["r-1", "r-1", "r-0", "r-1", "r-0"],
            "prompt": ["a", "a", "a", "b", "b"],
            "x": [1.0, 3.0, 5.0, 7.0, math.nan],
        }
    )
    assert cells(table, "x").to_numpy().tolist() == [[5.0], [2.0]]


def test_a_group_has_its_mean_over_runs_and_prompts() -> None:
    table = pd.DataFrame(
        {
            "condition": "mapped",
            "run": ["mapped-0", "mapped-0", "mapped-1", "mapped-1"],
            "prompt": ["a", "b", "a", "b"],
            "p": [0.0, 1.0, 0.5, 0.9],
        }
    )
    (row,) = with_interval(table, ["condition"], "p", SETTINGS).to_dict("records")
    by_hand = hierarchical_mean([[0.0, 1.0], [0.5, 0.9]], SETTINGS)
    assert row == {"condition": "mapped", **vars(by_hand), "n_seeds": 2, "n_prompts": 2}
    assert row["mean"] == pytest.approx(0.6)


def test_no_rows_have_headers() -> None:
    table = pd.DataFrame(columns=["condition", "run", "prompt", "p"])
    found = with_interval(table, ["condition"], "p", SETTINGS)
    assert found.empty
    assert list(found) == ["condition", "mean", "low", "high", "n_seeds", "n_prompts"]


def test_the_base_stands_under_each_run() -> None:
    base = pd.DataFrame(
        {"run": ["base"], "condition": ["base"], "seed": [0], "checkpoint": ["base"], "p": [0.1]}
    )
    runs = pd.DataFrame(
        {
            "run": ["mapped-0", "shuffled-3"],
            "condition": ["mapped", "shuffled"],
            "seed": [0, 3],
            "checkpoint": "100",
            "p": [0.9, 0.5],
        }
    )
    found = under_each_run(base, runs)
    assert found[found["checkpoint"] == "base"].drop(columns="checkpoint").to_dict("records") == [
        {"run": "mapped-0", "condition": "mapped", "seed": 0, "p": 0.1},
        {"run": "shuffled-3", "condition": "shuffled", "seed": 3, "p": 0.1},
    ]
    assert len(found) == 4


def test_loss_is_averaged_since_the_checkpoint_before() -> None:
    log = pd.DataFrame({"step": [1, 2, 3, 4], "loss": [8.0, 6, 4, 2]})
    loss = loss_by_step({"mapped-0": log})
    assert loss["progress"].tolist() == [0.25, 0.5, 0.75, 1]
    evaluation = pd.DataFrame(
        {
            "run": "mapped-0",
            "checkpoint": ["base", "025", "050", "100"],
            "step": [0, 1, 3, 3],
        }
    )
    found = loss_at_checkpoints(loss, evaluation).set_index("checkpoint")["loss"]
    # 050: steps 2 and 3. 100 fell on the same step as 050 and shows that step alone.
    assert found.to_dict() == {"025": 8, "050": 5, "100": 4}


def test_understanding_is_of_evaluation_prompts_alone() -> None:
    table = pd.DataFrame(
        {
            "run": "mapped-0",
            "condition": "mapped",
            "type": "simple",
            "word": "blarf",
            "checkpoint": "100",
            "role": ["evaluation", "evaluation", "unseen"],
            "prompt": ["a", "b", "c"],
            "p": [0.5, 0.75, 0.0],
        }
    )
    (row,) = understanding(table, SETTINGS).to_dict("records")
    assert row["mean"] == 0.625


def drift_row(**changed: Any) -> dict[str, Any]:
    return {
        "run": "mapped-0",
        "condition": "mapped",
        "change": "trained",
        "from": "base",
        "to": "025",
        "role": "discovery",
        "prompt": "a",
        "drift": 0.5,
        **changed,
    }


def test_drift_is_from_base_and_random_adapters_stand_apart() -> None:
    drift = pd.DataFrame(
        [
            drift_row(),
            drift_row(role="control", prompt="c", drift=0.25),
            drift_row(**{"from": "025", "to": "050"}, drift=0.9),
            drift_row(change="random-0", drift=0.1),
            drift_row(change="random-1", drift=0.3),
            drift_row(change="random-0", run="shuffled-0", condition="shuffled", drift=0.4),
        ]
    )
    found = drift_summary(drift, SETTINGS).set_index(["condition", "prompts", "checkpoint"])
    assert found["mean"].round(12).to_dict() == {
        ("mapped", "control", "025"): 0.25,
        ("mapped", "task", "025"): 0.5,
        # Run mapped-0 averages its two draws: (0.2 + 0.4) / 2.
        ("random adapter", "task", "025"): 0.3,
    }
    assert found["n_seeds"].tolist() == [1, 1, 2]


def test_overlap_is_corrected_of_the_means_over_runs() -> None:
    overlap = pd.DataFrame(
        {
            "run": ["mapped-0", "mapped-1", "one-0"],
            "condition": ["mapped", "mapped", "one"],
            "role": "discovery",
            "from": "base",
            "to": "100",
            "threshold": 0.7,
            "jaccard": [0.4, 0.6, 0.5],
            "null": [0.1, 0.1, 0.1],
            "ceiling": [0.9, 0.9, math.nan],
        }
    )
    found = overlap_summary(overlap).set_index("condition")
    assert found.loc["mapped", "corrected"] == pytest.approx(0.5)
    assert found.loc["mapped", "n_runs"] == 2
    assert math.isnan(found.loc["one", "corrected"])


def place_rows(condition: str, seed: int, moved: float) -> list[dict[str, Any]]:
    return [
        {
            "run": f"{condition}-{seed}",
            "condition": condition,
            "from": "base",
            "to": "100",
            "role": role,
            "layer": layer,
            "segment": "last",
            "gained": 1.0 - layer,
            "lost": 2.0 * layer,
            "moved": moved * layer,
            "before": 3.0 - 2 * layer,
        }
        for layer in (0, 1)
        for role in ("discovery", "control")
    ]


def test_the_maps_are_in_percent_of_the_whole_base_effect() -> None:
    rows = [
        *place_rows("mapped", 0, 2.0),
        *place_rows("mapped", 1, 4.0),
        *place_rows("shuffled", 0, 1.0),
    ]
    places = pd.DataFrame(rows)
    change = change_map(places, "mapped", "100").set_index("layer")
    assert change["gained"].tolist() == [25, 0]
    assert change["lost"].tolist() == [0, 50]
    found = mapping_by_place(places, "100", SETTINGS).set_index("layer")
    assert found["mean"].tolist() == [0, 50]  # (3 - 1) of 4
    assert (found.loc[1, "low"], found.loc[1, "high"]) == (25, 75)
    assert found["n_seeds"].tolist() == [1, 1]
    assert mapping_by_place(places[places["condition"] == "mapped"], "100", SETTINGS).empty

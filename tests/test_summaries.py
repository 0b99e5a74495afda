from __future__ import annotations

import pandas as pd
import pytest

from circuitdrift.config import Report
from circuitdrift.summaries import (
    change_map,
    checkpoint_order,
    drift_from_base,
    loss_at_checkpoints,
    loss_by_step,
    with_interval,
)

SETTINGS = Report(confidence=0.95, bootstrap_samples=200, seed=0)


def test_base_comes_first() -> None:
    assert checkpoint_order(["100", "025", "base", "100"]) == ["base", "025", "100"]


def test_runs_are_averaged_before_prompts() -> None:
    table = pd.DataFrame(
        {
            "condition": "mapped",
            "prompt": ["a", "a", "b"],
            "p": [0.0, 1.0, 1.0],
        }
    )
    row = with_interval(table, ["condition"], "p", SETTINGS).iloc[0]
    assert row["mean"] == pytest.approx((0.5 + 1) / 2)
    assert row["n_prompts"] == 2


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


def test_drift_from_base_leaves_other_pairs_out() -> None:
    drift = pd.DataFrame(
        {
            "condition": "mapped",
            "from": ["base", "base", "025"],
            "to": ["025", "025", "050"],
            "role": ["discovery", "control", "discovery"],
            "prompt": ["a", "c", "a"],
            "drift": [0.5, 0.25, 0.9],
        }
    )
    found = drift_from_base(drift, SETTINGS).set_index(["prompts", "checkpoint"])["mean"]
    assert found.to_dict() == {("task", "025"): 0.5, ("control", "025"): 0.25}


def test_the_map_is_in_percent_of_the_whole_base_effect() -> None:
    places = pd.DataFrame(
        {
            "from": "base",
            "to": "100",
            "role": ["discovery", "discovery", "control"],
            "layer": [0, 1, 1],
            "segment": "last",
            "gained": [1.0, 0, 50],
            "lost": [0.0, 2, 50],
            "before": [3.0, 1, 50],
        }
    )
    found = change_map(places, "100").set_index("layer")
    assert found["gained"].tolist() == [25, 0]
    assert found["lost"].tolist() == [0, 50]

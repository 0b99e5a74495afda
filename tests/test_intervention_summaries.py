from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from circuitdrift.config.statistics import Statistics
from circuitdrift.summaries.faithfulness_curves import faithfulness_summary
from circuitdrift.summaries.interventions import (
    ablation_rank_summary,
    patching_summary,
    specificity_summary,
    transfer_summary,
)
from study_plans import PLANTED, Plan
from study_tables import study_summaries

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=200, permutations=200, seed=0)


CURVE = {"condition": "mapped", "checkpoint": "100", "ablation": "mean"}


def curve_rows(circuit: str, values: list[float], full: float = 3.0) -> list[dict[str, Any]]:
    return [
        {
            **CURVE,
            "run": "mapped-0",
            "circuit": circuit,
            "size": size,
            "prompt": prompt,
            "value": value,
            "full": full,
            "empty": 1.0,
        }
        for size, value in zip((0.0, 0.5, 1.0), values, strict=True)
        for prompt in ("a", "b")
    ]


def test_faithfulness_and_its_areas_by_hand() -> None:
    rows = [
        *curve_rows("own", [1.0, 4.0, 3.0]),
        *curve_rows("random-0", [1.0, 1.0, 3.0]),
        *curve_rows("random-1", [1.0, 3.0, 3.0]),
    ]
    found = faithfulness_summary(pd.DataFrame(rows), SETTINGS)
    by = found.set_index(["circuit", "measure", "size"]).sort_index()["mean"]
    assert by["own", "faithfulness"].tolist() == [0, 1.5, 1]
    assert by["random", "faithfulness"].tolist() == [0, 0.5, 1]  # (0 + 1) / 2
    areas = found[found["size"].isna()].set_index(["circuit", "measure"])
    # f = 0, 1.5, 1 at 0, 0.5, 1: (0 + 1.5) / 4 + (1.5 + 1) / 4; |1 - f| = 1, 0.5, 0.
    assert areas.loc[("own", "CPR"), "mean"] == pytest.approx(1.0)
    assert areas.loc[("own", "CMD"), "mean"] == pytest.approx(0.5)
    # Prompts that are all alike leave the interval no width.
    assert areas.loc[("own", "CMD"), ["low", "high"]].tolist() == pytest.approx([0.5, 0.5])


def test_shares_of_next_to_nothing_are_empty() -> None:
    found = faithfulness_summary(pd.DataFrame(curve_rows("own", [1, 1, 1], 1.05)), SETTINGS)
    assert found[["mean", "low", "high"]].isna().all(axis=None)
    assert len(found) == 5


def test_one_size_has_no_area() -> None:
    rows = pd.DataFrame(curve_rows("own", [1.0, 2.0, 3.0]))
    found = faithfulness_summary(rows[rows["size"] == 0.5], SETTINGS)
    assert found["measure"].tolist() == ["faithfulness"]


def test_transfer_is_a_ratio_of_means() -> None:
    table = pd.DataFrame(
        {
            "run": "mapped-0",
            "condition": "mapped",
            "circuit_from": "base",
            "model": "100",
            "prompt": ["a", "b"],
            "value": [2.0, 1.0],
            "full": [4.0, 1.0],
            "empty": [0.0, 1.0],
        }
    )
    (row,) = transfer_summary(table, SETTINGS).to_dict("records")
    assert row["mean"] == 0.5  # (2 + 0) / (4 + 0), not the mean of 0.5 and 0/0


def test_patching_runs_both_ways_by_hand() -> None:
    common = {"run": "mapped-0", "condition": "mapped", "base": 1.0, "tuned": 5.0}
    patched = {
        ("sufficiency", "recruited"): 3.0,  # 2 of 4
        ("sufficiency", "random-0"): 1.0,
        ("sufficiency", "random-1"): 2.0,  # 0 and 1 of 4
        ("necessity", "recruited"): 2.0,  # 3 of 4, downwards
        ("necessity", "random-0"): 5.0,
    }
    table = pd.DataFrame(
        [
            {**common, "direction": direction, "nodes": nodes, "prompt": prompt, "patched": value}
            for (direction, nodes), value in patched.items()
            for prompt in ("a", "b")
        ]
    )
    found = patching_summary(table, SETTINGS).set_index(["direction", "nodes"])["mean"]
    assert found.to_dict() == pytest.approx(
        {
            ("necessity", "random"): 0,
            ("necessity", "recruited"): 0.75,
            ("necessity", "recruited beyond random"): 0.75,
            ("sufficiency", "random"): 0.125,
            ("sufficiency", "recruited"): 0.5,
            ("sufficiency", "recruited beyond random"): 0.375,
        }
    )


def test_specificity_and_ranks_are_means() -> None:
    specificity = pd.DataFrame(
        {
            "run": "mapped-0",
            "condition": "mapped",
            "circuit": ["simple", "simple", "random-0", "random-1"],
            "prompts": ["simple", "simple", "simple", "simple"],
            "prompt": ["a", "b", "a", "a"],
            "full": 4.0,
            "ablated": [1.0, 2.0, 3.0, 4.0],
        }
    )
    found = specificity_summary(specificity, SETTINGS).set_index("circuit")["mean"]
    assert found.to_dict() == {"random": 0.5, "simple": 2.5}
    ranks = pd.DataFrame(
        {
            "run": "mapped-0",
            "condition": "mapped",
            "checkpoint": "100",
            "prompt": ["a", "b", "c"],
            "spearman": [0.5, 0.75, math.nan],
        }
    )
    (row,) = ablation_rank_summary(ranks, SETTINGS).to_dict("records")
    assert (row["mean"], row["n_prompts"]) == (0.625, 2)


@pytest.mark.parametrize(
    "plan", [replace(PLANTED, validated=False), replace(PLANTED, recruited=False)]
)
def test_summaries_without_rows_have_headers(plan: Plan) -> None:
    found = study_summaries(plan)
    for table in (found.patching, found.transfer, found.faithfulness, found.ablation_rank):
        assert {"mean", "low", "high", "n_seeds", "n_prompts"} <= set(table)
    assert found.patching.empty
    assert found.faithfulness.empty == (not plan.validated)


def test_baselines_need_mapped_runs() -> None:
    plan = replace(PLANTED, conditions=("unrelated",), recruited=False, validated=False)
    found = study_summaries(plan).baselines
    assert found.empty
    assert list(found)[:4] == ["outcome", "predictor", "given", "correlation"]

"""Summaries over runs and prompts, by hand."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitdrift.params import Statistics
from circuitdrift.report.baselines import (
    CHEAP,
    OUTCOMES,
    PREDICTORS,
    baseline_table,
    compare_baselines,
)
from circuitdrift.report.faithfulness import (
    cmd,
    cpr,
    faithfulness_summary,
    patching_summary,
    transfer_summary,
)
from circuitdrift.report.summaries import (
    cells,
    change_map,
    checkpoint_order,
    drift_summary,
    focus_condition,
    loss_at_checkpoints,
    loss_by_step,
    mapping_by_place,
    middle_threshold,
    overlap_summary,
    under_each_run,
    with_interval,
)
from circuitdrift.statistics.intervals import hierarchical_mean

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=200, permutations=200, seed=0)
OF_RUN = {"run": "mapped-0", "condition": "mapped"}


def test_what_is_shown_first_and_where_there_is_room_for_one() -> None:
    assert checkpoint_order(["100", "025", "base", "100"]) == ["base", "025", "100"]
    assert focus_condition(("shuffled", "mapped")) == "mapped"
    assert focus_condition(("shuffled", "unrelated")) == "shuffled"
    assert middle_threshold([0.9, 0.5, 0.7]) == 0.7


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
    none = with_interval(table[:0], ["condition"], "p", SETTINGS)
    assert list(none) == ["condition", "mean", "low", "high", "n_seeds", "n_prompts"]


def test_the_base_stands_under_each_run() -> None:
    columns = ["run", "condition", "seed", "checkpoint", "p"]
    base = pd.DataFrame([("base", "base", 0, "base", 0.1)], columns=columns)
    rows = [("mapped-0", "mapped", 0, "100", 0.9), ("shuffled-3", "shuffled", 3, "100", 0.5)]
    table = under_each_run(base, pd.DataFrame(rows, columns=columns))
    assert list(table[columns].itertuples(index=False, name=None)) == [
        ("mapped-0", "mapped", 0, "base", 0.1),
        ("shuffled-3", "shuffled", 3, "base", 0.1),
        *rows,
    ]


def test_loss_is_averaged_since_the_checkpoint_before() -> None:
    loss = loss_by_step({"r-0": pd.DataFrame({"step": [1, 2, 3, 4], "loss": [8.0, 6, 4, 2]})})
    assert loss["progress"].tolist() == [0.25, 0.5, 0.75, 1]
    evaluation = pd.DataFrame(
        {"run": "r-0", "checkpoint": ["base", "025", "050", "100"], "step": [0, 1, 3, 3]}
    )
    table = loss_at_checkpoints(loss, evaluation).set_index("checkpoint")["loss"]
    # 050: steps 2 and 3. 100 fell on the same step as 050 and shows that step alone.
    assert table.to_dict() == {"025": 8, "050": 5, "100": 4}


def test_drift_is_from_base_and_random_adapters_stand_apart() -> None:
    columns = ["run", "condition", "change", "from", "to", "role", "prompt", "drift"]
    rows = [
        ("mapped-0", "mapped", "trained", "base", "025", "discovery", "a", 0.5),
        ("mapped-0", "mapped", "trained", "base", "025", "control", "c", 0.25),
        ("mapped-0", "mapped", "trained", "025", "050", "discovery", "a", 0.9),
        ("mapped-0", "mapped", "random-0", "base", "025", "discovery", "a", 0.1),
        ("mapped-0", "mapped", "random-1", "base", "025", "discovery", "a", 0.3),
        ("shuffled-0", "shuffled", "random-0", "base", "025", "discovery", "a", 0.4),
    ]
    table = drift_summary(pd.DataFrame(rows, columns=columns), SETTINGS)
    table = table.set_index(["condition", "prompts", "checkpoint"])
    assert table["mean"].round(12).to_dict() == {
        ("mapped", "control", "025"): 0.25,
        ("mapped", "task", "025"): 0.5,
        # Run mapped-0 averages its two draws: (0.2 + 0.4) / 2.
        ("random adapter", "task", "025"): 0.3,
    }
    assert table["n_seeds"].tolist() == [1, 1, 2]


def test_overlap_is_corrected_of_the_means_over_runs() -> None:
    overlap = pd.DataFrame(
        {
            "run": ["mapped-0", "mapped-1", "one-0"],
            "condition": ["mapped", "mapped", "one"],
            **{"role": "discovery", "from": "base", "to": "100", "threshold": 0.7},
            "jaccard": [0.4, 0.6, 0.5],
            "null": [0.1, 0.1, 0.1],
            "ceiling": [0.9, 0.9, math.nan],
        }
    )
    table = overlap_summary(overlap).set_index("condition")
    assert table.loc["mapped", "corrected"] == pytest.approx(0.5)
    assert table.loc["mapped", "n_runs"] == 2
    assert math.isnan(table.loc["one", "corrected"])


def test_the_maps_are_in_percent_of_the_whole_base_effect() -> None:
    moved = (("mapped", 0, 2.0), ("mapped", 1, 4.0), ("shuffled", 0, 1.0))
    places = pd.DataFrame(
        {
            **{"run": f"{condition}-{seed}", "condition": condition},
            **{"from": "base", "to": "100", "role": role, "layer": layer, "segment": "last"},
            **{"gained": 1.0 - layer, "lost": 2.0 * layer, "before": 3.0 - 2 * layer},
            "moved": by * layer,
        }
        for (condition, seed, by), layer, role in product(moved, (0, 1), ("discovery", "control"))
    )
    change = change_map(places, "mapped", "100").set_index("layer")
    assert change["gained"].tolist() == [25, 0]
    assert change["lost"].tolist() == [0, 50]
    table = mapping_by_place(places, "100", SETTINGS).set_index("layer")
    assert table["mean"].tolist() == [0, 50]  # (3 - 1) of 4
    assert (table.loc[1, "low"], table.loc[1, "high"]) == (25, 75)
    assert table["n_seeds"].tolist() == [1, 1]
    assert mapping_by_place(places[places["condition"] == "mapped"], "100", SETTINGS).empty


def test_areas_are_trapezoids_over_sizes_on_a_linear_axis() -> None:
    sizes, f = [0.1, 0.5, 1.0], [0.5, 1.5, 1.0]
    # 0.4 * (0.5 + 1.5) / 2 + 0.5 * (1.5 + 1) / 2
    assert cpr(sizes, f) == pytest.approx(0.4 + 0.625)
    # 0.4 * (0.5 + 0.5) / 2 + 0.5 * (0.5 + 0) / 2: too much counts like too little
    assert cmd(sizes, f) == pytest.approx(0.2 + 0.125)
    assert cpr(sizes, np.ones((2, 3))).tolist() == pytest.approx([0.9, 0.9])
    with pytest.raises(ValueError, match="must ascend"):
        cmd([0.5, 0.1], [1.0, 1.0])


def curve_rows(circuit: str, values: list[float], full: float = 3.0) -> list[dict[str, Any]]:
    return [
        {
            **OF_RUN,
            **{"checkpoint": "100", "ablation": "mean", "circuit": circuit, "size": size},
            **{"prompt": prompt, "value": value, "full": full, "empty": 1.0},
        }
        for (size, value), prompt in product(zip((0.0, 0.5, 1.0), values, strict=True), "ab")
    ]


def test_faithfulness_and_its_areas_by_hand() -> None:
    rows = [
        *curve_rows("own", [1.0, 4.0, 3.0]),
        *curve_rows("random-0", [1.0, 1.0, 3.0]),
        *curve_rows("random-1", [1.0, 3.0, 3.0]),
    ]
    table = faithfulness_summary(pd.DataFrame(rows), SETTINGS)
    by = table.set_index(["circuit", "measure", "size"]).sort_index()["mean"]
    assert by["own", "faithfulness"].tolist() == [0, 1.5, 1]
    assert by["random", "faithfulness"].tolist() == [0, 0.5, 1]  # (0 + 1) / 2
    areas = table[table["size"].isna()].set_index(["circuit", "measure"])
    # f = 0, 1.5, 1 at 0, 0.5, 1: (0 + 1.5) / 4 + (1.5 + 1) / 4; |1 - f| = 1, 0.5, 0.
    assert areas.loc[("own", "CPR"), "mean"] == pytest.approx(1.0)
    assert areas.loc[("own", "CMD"), "mean"] == pytest.approx(0.5)
    # Prompts that are all alike leave the interval no width.
    assert areas.loc[("own", "CMD"), ["low", "high"]].tolist() == pytest.approx([0.5, 0.5])


def test_shares_of_next_to_nothing_are_empty_and_one_size_has_no_area() -> None:
    table = faithfulness_summary(pd.DataFrame(curve_rows("own", [1, 1, 1], 1.05)), SETTINGS)
    assert table[["mean", "low", "high"]].isna().all(axis=None)
    assert len(table) == 5
    rows = pd.DataFrame(curve_rows("own", [1.0, 2.0, 3.0]))
    one_size = faithfulness_summary(rows[rows["size"] == 0.5], SETTINGS)
    assert one_size["measure"].tolist() == ["faithfulness"]


def test_transfer_is_a_ratio_of_means() -> None:
    table = pd.DataFrame(
        {
            **OF_RUN,
            **{"circuit_from": "base", "model": "100", "prompt": ["a", "b"]},
            **{"value": [2.0, 1.0], "full": [4.0, 1.0], "empty": [0.0, 1.0]},
        }
    )
    (row,) = transfer_summary(table, SETTINGS).to_dict("records")
    assert row["mean"] == 0.5  # (2 + 0) / (4 + 0), not the mean of 0.5 and 0/0


def test_patching_runs_both_ways_by_hand() -> None:
    patched = {
        ("sufficiency", "recruited"): 3.0,  # 2 of 4
        ("sufficiency", "random-0"): 1.0,
        ("sufficiency", "random-1"): 2.0,  # 0 and 1 of 4
        ("necessity", "recruited"): 2.0,  # 3 of 4, downwards
        ("necessity", "random-0"): 5.0,
    }
    table = pd.DataFrame(
        {
            **OF_RUN,
            **{"direction": direction, "nodes": nodes, "prompt": prompt},
            **{"base": 1.0, "tuned": 5.0, "patched": value},
        }
        for ((direction, nodes), value), prompt in product(patched.items(), "ab")
    )
    means = patching_summary(table, SETTINGS).set_index(["direction", "nodes"])["mean"]
    assert means.to_dict() == pytest.approx(
        {
            ("necessity", "random"): 0,
            ("necessity", "recruited"): 0.75,
            ("necessity", "recruited beyond random"): 0.75,
            ("sufficiency", "random"): 0.125,
            ("sufficiency", "recruited"): 0.5,
            ("sufficiency", "recruited beyond random"): 0.375,
        }
    )


def known(condition: str = "mapped") -> pd.DataFrame:
    """The baselines' table of one run and one word with two evaluation prompts: log-odds 0 and 2,
    then 1 and 5, then 4 and 4; kl_to_base is log-odds + 1, activation distance half of it.
    """
    of_run = {"run": f"{condition}-0", "condition": condition, "word": "blarf"}
    log_odds = {"025": (0.0, 2.0), "050": (1.0, 5.0), "100": (4.0, 4.0)}
    evaluation = pd.DataFrame(
        {
            **of_run,
            **{"checkpoint": checkpoint, "role": role, "p": value / 100, "log_odds": value},
            **{"kl_to_base": value + 1, "activation_distance": value / 2},
        }
        for role, checkpoint in product(("evaluation", "unseen"), log_odds)
        for value in log_odds[checkpoint] + (9.0,) * (role == "unseen")
    )
    drift = pd.DataFrame(
        {**of_run, "change": change, "from": before, "to": to, "role": role, "drift": value + more}
        for to, more in {"025": 0.0, "050": 0.125, "100": 0.2}.items()
        for change, before, role, value in (
            ("trained", "base", "discovery", 0.25),
            ("trained", "base", "discovery", 0.75),
            ("trained", "base", "evaluation", 0.9),
            ("trained", "025", "discovery", 0.9),
            ("random-0", "base", "discovery", 0.9),
        )
    )
    at = pd.DataFrame({"run": f"{condition}-0", "checkpoint": list(log_odds)})
    norms = pd.concat([at.assign(norm=[3.0, 5.0, 8.0]), at.assign(norm=[4.0, 12.0, 15.0])])
    return baseline_table(drift, evaluation, norms, at.assign(loss=[6.0, 4.0, 1.0]), list(log_odds))


def test_what_is_known_of_a_word_and_what_it_gains_by_hand() -> None:
    table = known()
    assert list(table) == ["run", "word", "checkpoint", *PREDICTORS, *OUTCOMES]
    rows = table.set_index("checkpoint")[[*PREDICTORS, *OUTCOMES]]
    assert list(rows.index) == ["025", "050"]
    assert rows.loc["025"].tolist() == pytest.approx([0.5, 6, 2, 0.5, 5, 2, 0.02])
    assert rows.loc["050"].tolist() == pytest.approx([0.625, 4, 4, 1.5, 13, 1, 0.01])


def predictors(told_by: str) -> pd.DataFrame:
    """5 runs of 6 words at 3 checkpoints: independent predictors, but drift is a noisy copy of
    kl_to_base, and both gains are ``told_by`` and noise."""
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [[f"mapped-{run}" for run in range(5)], list("abcdef"), ["025", "050", "075"]],
        names=["run", "word", "checkpoint"],
    )
    table = pd.DataFrame({name: rng.normal(size=len(index)) for name in PREDICTORS}, index=index)
    table["drift"] = table["kl_to_base"] + 0.5 * table["drift"]
    for outcome in OUTCOMES:
        table[outcome] = table[told_by] + 0.5 * rng.normal(size=len(index))
    return table.reset_index()


def compared(table: pd.DataFrame, predictor: str = "drift") -> pd.DataFrame:
    """By what is held constant."""
    rows = compare_baselines(table, SETTINGS)
    rows = rows[(rows["outcome"] == "gain_log_odds") & (rows["predictor"] == predictor)]
    return rows.set_index("given")


def test_a_predictor_that_carries_the_outcome_adds_to_the_others() -> None:
    rows = compared(predictors("drift"))
    assert set(rows.index) == {"nothing", "all others", "all others, checkpoint", *CHEAP}
    assert (rows["correlation"] > 0.5).all()
    assert (rows["low"] > 0).all()
    assert (rows["low"] <= rows["correlation"]).all()
    assert (rows["correlation"] <= rows["high"]).all()
    assert rows["adds"].all()
    assert (rows["n"] == 90).all()


def test_what_only_tells_how_far_training_has_gone_adds_nothing_to_that() -> None:
    """Drift rises and the gains fall with training; at one checkpoint they are unrelated."""
    table = predictors("loss")
    trained = table["checkpoint"].map({"025": 0, "050": 1, "075": 2})
    noise = np.random.default_rng(1).normal(size=(2, len(table)))
    rows = compared(
        table.assign(drift=trained + 0.5 * noise[0], gain_log_odds=-trained + 0.5 * noise[1])
    )
    assert rows.loc["all others", "high"] < -0.3
    assert not rows.loc["all others, checkpoint", "adds"]


def test_a_correlation_by_hand_one_run_and_no_rows() -> None:
    """Ranks 1 to 4 of drift against gains in reverse, but for one exchange: 1 - 6 * 2 / 60."""
    table = pd.DataFrame(
        {
            "run": ["a", "a", "b", "b"],
            "checkpoint": ["025", "050", "025", "050"],
            "drift": [1.0, 2, 3, 4],
            **{name: [2.0, 4, 1, 3] for name in CHEAP},
            **{name: [9.0, 7, 5, 6] for name in OUTCOMES},
        }
    )
    row = compared(table).loc["nothing"]
    assert row["correlation"] == pytest.approx(-0.8)
    assert row["n"] == 4
    one_run = compared(table.assign(run="a")).loc["nothing"]
    assert one_run["correlation"] == pytest.approx(-0.8)
    assert math.isnan(one_run["low"])
    assert not one_run["adds"]
    untaught = compare_baselines(known("shuffled"), SETTINGS)
    assert list(untaught) == list(compare_baselines(table, SETTINGS))
    assert untaught.empty

"""The baselines' table by hand, and predictors that are known to tell something or nothing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from circuitdrift.baselines import (
    CHEAP,
    OUTCOMES,
    PREDICTORS,
    baseline_table,
    compare_baselines,
)
from circuitdrift.config.statistics import Statistics

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=500, permutations=100, seed=0)
CHECKPOINTS = ("025", "050", "100")
JOINTLY = ("all others", "all others, checkpoint")


def evaluation() -> pd.DataFrame:
    """Two words with two prompts each; log-odds 0 and 2, then 1 and 5, then 4 and 4 for the first,
    and ten times that for the second; kl_to_base is log-odds + 1, activation distance half of it.
    """
    log_odds = {"025": (0.0, 2.0), "050": (1.0, 5.0), "100": (4.0, 4.0)}
    rows = [
        {
            "run": run,
            "condition": run.split("-")[0],
            "checkpoint": checkpoint,
            "role": role,
            "word": word,
            "p": factor * value / 100,
            "log_odds": factor * value,
            "kl_to_base": factor * value + 1,
            "activation_distance": factor * value / 2,
        }
        for run in ("mapped-0", "mapped-1", "shuffled-0")
        for role, factors in {"evaluation": (1, 10), "unseen": (7, 70)}.items()
        for word, factor in zip(("blarf", "glide"), factors, strict=True)
        for checkpoint, values in log_odds.items()
        for value in values
    ]
    return pd.DataFrame(rows)


def drift() -> pd.DataFrame:
    """At 025, blarf has discovery prompts of 0.25 and 0.75, glide one of 0.125."""
    columns = ["run", "change", "from", "to", "role", "word", "drift"]
    rows = []
    for run in ("mapped-0", "mapped-1", "shuffled-0"):
        for to, more in (("025", 0.0), ("050", 0.125), ("100", 0.2)):
            rows += [
                (run, "trained", "base", to, "discovery", "blarf", 0.25 + more),
                (run, "trained", "base", to, "discovery", "blarf", 0.75 + more),
                (run, "trained", "base", to, "discovery", "glide", 0.125 + more),
                (run, "trained", "base", to, "evaluation", "glide", 0.9),
                (run, "trained", "base", to, "control", None, 0.9),
                (run, "random-0", "base", to, "discovery", "glide", 0.9),
            ]
        rows.append((run, "trained", "025", "050", "discovery", "glide", 0.9))
    return pd.DataFrame(rows, columns=columns)


def norms() -> pd.DataFrame:
    sides = {"025": (3.0, 4.0), "050": (5.0, 12.0), "100": (8.0, 15.0)}
    rows = [
        {"run": run, "checkpoint": checkpoint, "layer": layer, "norm": norm}
        for run in ("mapped-0", "mapped-1", "shuffled-0")
        for checkpoint, values in sides.items()
        for layer, norm in enumerate(values)
    ]
    return pd.DataFrame(rows)


def loss() -> pd.DataFrame:
    rows = [
        (run, checkpoint, step, value + offset)
        for run, offset in (("mapped-0", 0.0), ("mapped-1", 1.0), ("shuffled-0", 2.0))
        for checkpoint, step, value in (("025", 1, 6.0), ("050", 2, 4.0), ("100", 4, 1.0))
    ]
    return pd.DataFrame(rows, columns=["run", "checkpoint", "step", "loss"])


def test_the_table_by_hand() -> None:
    table = baseline_table(drift(), evaluation(), norms(), loss(), CHECKPOINTS)
    assert list(table.columns) == ["run", "word", "checkpoint", *PREDICTORS, *OUTCOMES]
    found = table.set_index(["run", "word", "checkpoint"])
    expected = {
        ("mapped-0", "blarf", "025"): (0.5, 6, 2, 0.5, 5, 2, 0.02),
        ("mapped-0", "blarf", "050"): (0.625, 4, 4, 1.5, 13, 1, 0.01),
        ("mapped-0", "glide", "025"): (0.125, 6, 11, 5, 5, 20, 0.2),
        ("mapped-0", "glide", "050"): (0.25, 4, 31, 15, 13, 10, 0.1),
        ("mapped-1", "blarf", "025"): (0.5, 7, 2, 0.5, 5, 2, 0.02),
        ("mapped-1", "blarf", "050"): (0.625, 5, 4, 1.5, 13, 1, 0.01),
        ("mapped-1", "glide", "025"): (0.125, 7, 11, 5, 5, 20, 0.2),
        ("mapped-1", "glide", "050"): (0.25, 5, 31, 15, 13, 10, 0.1),
    }
    assert set(found.index) == set(expected)
    for key, values in expected.items():
        assert found.loc[key].tolist() == pytest.approx(values), key


def test_a_missing_measure_is_named() -> None:
    lacking = norms()
    lacking = lacking[(lacking["run"] != "mapped-1") | (lacking["checkpoint"] != "050")]
    with pytest.raises(ValueError, match=r"2 rows lack.*mapped-1/blarf/050 lacks lora_norm"):
        baseline_table(drift(), evaluation(), lacking, loss(), CHECKPOINTS)


def simulated(told_by: str, seed: int = 0) -> pd.DataFrame:
    """5 runs of 6 words at 3 checkpoints: independent predictors, but drift is a noisy copy of
    kl_to_base, and both gains are ``told_by`` and noise."""
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [[f"mapped-{run}" for run in range(5)], list("abcdef"), ["025", "050", "075"]],
        names=["run", "word", "checkpoint"],
    )
    table = pd.DataFrame({name: rng.normal(size=len(index)) for name in PREDICTORS}, index=index)
    table["drift"] = table["kl_to_base"] + 0.5 * table["drift"]
    for outcome in OUTCOMES:
        table[outcome] = table[told_by] + 0.5 * rng.normal(size=len(index))
    return table.reset_index()


def answer(compared: pd.DataFrame, predictor: str, given: str) -> pd.Series:
    rows = compared[
        (compared["outcome"] == "gain_log_odds")
        & (compared["predictor"] == predictor)
        & (compared["given"] == given)
    ]
    assert len(rows) == 1
    return rows.iloc[0]


def test_every_question_is_asked_of_both_outcomes() -> None:
    compared = compare_baselines(simulated("drift"), SETTINGS)
    columns = ["outcome", "predictor", "given", "correlation", "low", "high", "n", "adds"]
    assert list(compared.columns) == columns
    asked = {
        *((name, given) for name in PREDICTORS for given in ("nothing", *JOINTLY)),
        *(("drift", name) for name in CHEAP),
    }
    for outcome in OUTCOMES:
        rows = compared[compared["outcome"] == outcome]
        assert set(zip(rows["predictor"], rows["given"], strict=True)) == asked
        assert len(rows) == len(asked)
    assert (compared["n"] == 90).all()
    assert (compared["low"] <= compared["correlation"]).all()
    assert (compared["correlation"] <= compared["high"]).all()


def test_a_predictor_that_carries_the_outcome_adds_to_the_others() -> None:
    compared = compare_baselines(simulated("drift"), SETTINGS)
    for given in ("nothing", *JOINTLY, *CHEAP):
        row = answer(compared, "drift", given)
        assert row["correlation"] > 0.5
        assert row["low"] > 0
        assert row["adds"]


def test_a_predictor_that_copies_another_adds_nothing_to_it() -> None:
    compared = compare_baselines(simulated("kl_to_base"), SETTINGS)
    assert answer(compared, "drift", "nothing")["correlation"] > 0.5
    assert answer(compared, "drift", "nothing")["adds"]
    assert answer(compared, "drift", "lora_norm")["adds"]
    assert not answer(compared, "drift", "kl_to_base")["adds"]
    assert not answer(compared, "drift", "all others")["adds"]
    assert answer(compared, "kl_to_base", "all others")["adds"]


def test_what_only_tells_how_far_training_has_gone_adds_nothing_to_that() -> None:
    """Drift rises and the gains fall with training; at one checkpoint they are unrelated."""
    table = simulated("loss")
    trained = table["checkpoint"].map({"025": 0, "050": 1, "075": 2})
    noise = np.random.default_rng(1).normal(size=(3, len(table)))
    table = table.assign(
        drift=trained + 0.5 * noise[0],
        gain_log_odds=-trained + 0.5 * noise[1],
        gain_p=-trained + 0.5 * noise[2],
    )
    compared = compare_baselines(table, SETTINGS)
    assert answer(compared, "drift", "all others")["high"] < -0.3
    assert not answer(compared, "drift", "all others, checkpoint")["adds"]


def test_a_correlation_by_hand_and_a_sign_below_zero() -> None:
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
    row = answer(compare_baselines(table, SETTINGS), "drift", "nothing")
    assert row["correlation"] == pytest.approx(-0.8)
    assert row["n"] == 4


def test_one_run_has_no_interval_and_an_empty_table_no_correlation() -> None:
    table = simulated("drift")
    one = answer(compare_baselines(table[table["run"] == "mapped-0"], SETTINGS), "drift", "nothing")
    assert one["correlation"] > 0.5
    assert math.isnan(one["low"])
    assert not one["adds"]
    answers = evaluation()
    untaught = answers[answers["condition"] == "shuffled"]
    for evaluated, checkpoints in ((answers, ("100",)), (untaught, CHECKPOINTS)):
        empty = baseline_table(drift(), evaluated, norms(), loss(), checkpoints)
        assert len(empty) == 0
        none = compare_baselines(empty, SETTINGS)
        assert none[["correlation", "low", "high"]].isna().all(axis=None)
        assert (none["n"] == 0).all()
        assert not none["adds"].any()

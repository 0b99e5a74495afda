from __future__ import annotations

import math
from dataclasses import replace

import pytest

from circuitdrift.scaling import names as of
from circuitdrift.scaling.differences import correlation, difference, ends_of, spread
from circuitdrift.scaling.findings import faithful, growth, product_ends, tally, teaching
from circuitdrift.scaling.frames import (
    experiments_table,
    flattened,
    measures_table,
    on_the_same_recipe,
    points,
    varied_keys,
)
from circuitdrift.scaling.ladder import changes, climb, first_above, largest_step, rungs, start
from circuitdrift.scaling.matched import matched
from simulated_sweep import (
    EPOCHS,
    ONE_RUN,
    SIZE,
    experiment,
    grid_member,
    member,
    simulated_experiments,
    simulated_sweep,
)
from study_tables import study_params

SETTINGS = study_params(ONE_RUN).statistics
ASKED = study_params(ONE_RUN).verdicts
SWEEP = simulated_sweep()
EXPERIMENTS = simulated_experiments(SWEEP)


def test_a_difference_is_taken_prompt_by_prompt() -> None:
    before = experiment(grid_member(1, 25), prompts={of.P_ANSWER: [0.0, 0.5, 0.25, 0.75]})
    after = experiment(grid_member(3, 25), prompts={of.P_ANSWER: [0.25, 0.75, 0.5, 1.0]})
    found = difference(before, after, of.P_ANSWER, SETTINGS)
    # Each prompt rose by a quarter, so no draw of prompts gives anything else.
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_a_measure_without_prompts_differs_without_interval() -> None:
    before = experiment(grid_member(1, 25), measures={of.MOVED: 10})
    after = experiment(grid_member(3, 25), measures={of.MOVED: 25})
    found = difference(before, after, of.MOVED, SETTINGS)
    assert found.mean == 15
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(difference(before, after, of.CMD, SETTINGS).mean)


def test_ends_are_least_and_most_at_each_setting_of_the_others() -> None:
    members = [grid_member(epochs, size) for size in (50, 25) for epochs in (3, 10, 1)]
    alone = grid_member(3, 200)
    found = ends_of([experiment(one) for one in (*members, alone)], EPOCHS, [SIZE])
    assert [ends.held for ends in found] == [{SIZE: 25}, {SIZE: 50}]  # 200 has one experiment
    assert [ends.least.name for ends in found] == [
        "epochs-1.n_examples-25",
        "epochs-1.n_examples-50",
    ]
    assert [ends.most.params.train.epochs for ends in found] == [10, 10]
    assert len(found[0].all) == 3


def test_an_unfinished_end_shortens_no_comparison() -> None:
    without = [one for one in EXPERIMENTS if one.name != "epochs-3.n_examples-25"]
    by_key = dict(product_ends(SWEEP, without))
    assert [ends.held for ends in by_key[EPOCHS]] == [{SIZE: 50}]
    assert [ends.held for ends in by_key[SIZE]] == [{EPOCHS: 1.0}]


def test_spread_is_over_what_was_measured() -> None:
    values = [experiment(grid_member(1, 25), measures={of.CMD: value}) for value in (0.5, 0.125)]
    assert spread([*values, experiment(grid_member(1, 25))], of.CMD) == 0.375
    assert math.isnan(spread(values[:1], of.CMD))


def test_rank_correlation_is_over_experiments_that_have_the_measure() -> None:
    rising = [experiment(grid_member(1, 25), measures={of.P_ANSWER: p}) for p in (0.1, 0.2, 0.9)]
    lacking = experiment(grid_member(1, 25))
    assert correlation([*rising, lacking], [1, 5, 6, 2], of.P_ANSWER) == (pytest.approx(1.0), 3)
    assert correlation(rising, [3, 2, 1], of.P_ANSWER)[0] == pytest.approx(-1.0)
    rho, n = correlation(rising[:2], [1, 2], of.P_ANSWER)
    assert math.isnan(rho)
    assert n == 2
    assert math.isnan(correlation(rising, [4, 4, 4], of.P_ANSWER)[0])


def test_varied_keys_are_those_whose_values_differ() -> None:
    assert varied_keys(SWEEP) == [
        SIZE,
        "train.batch_size",
        EPOCHS,
        "train.learning_rate",
        "train.warmup_steps",
    ]


def test_the_table_of_experiments_joins_params_and_measures() -> None:
    table = experiments_table(EXPERIMENTS, varied_keys(SWEEP)).set_index("experiment")
    assert len(table) == len(SWEEP.members)
    shared = table.loc["epochs-3.n_examples-50"]
    assert shared["arms"] == "grid;ladder"
    assert (shared[EPOCHS], shared[SIZE], shared["steps"]) == (3.0, 50, 21)
    assert shared[of.ACCURACY] == pytest.approx(0.25 + 0.6 * 21 / 30)
    assert math.isnan(shared[of.RECRUITED])
    tidy = measures_table(EXPERIMENTS)
    assert list(tidy.columns) == [
        *("experiment", "measure", "mean", "low", "high", "n_seeds", "n_prompts"),
    ]
    assert not tidy[["experiment", "measure"]].duplicated().any()


def test_points_have_the_params_beside_the_values() -> None:
    rows = points(EXPERIMENTS[:1], [EPOCHS], [of.ACCURACY, of.RECRUITED])
    assert rows[["experiment", "steps", EPOCHS, "measure"]].values.tolist() == [
        ["epochs-1.n_examples-25", 4, 1.0, of.ACCURACY]
    ]


def test_rungs_are_not_compared_by_steps() -> None:
    names = [one.name for one in on_the_same_recipe(SWEEP, EXPERIMENTS)]
    assert "original" not in names
    assert "epochs-3.n_examples-50" in names  # of the grid too


def test_a_tally_counts_intervals_off_zero() -> None:
    def pair(rise: tuple[float, ...]) -> list:
        before = experiment(grid_member(1, 25), prompts={of.ACCURACY: [0.0] * 4})
        after = experiment(grid_member(3, 25), prompts={of.ACCURACY: rise})
        return ends_of([before, after], EPOCHS, [SIZE])

    pairs = [*pair((1, 1, 1, 1)), *pair((-1, -1, -1, -1)), *pair((1, -1, 1, -1))]
    assert tally(pairs, of.ACCURACY, SETTINGS) == {
        "n": 3,
        "above": 1,
        "below": 1,
        "smallest": -1.0,
        "largest": 1.0,
    }


def test_teaching_names_the_ends_of_what_was_varied() -> None:
    found = teaching(SWEEP, EXPERIMENTS, SETTINGS)
    assert found["lowest"]["name"] == "epochs-1.n_examples-25"
    assert found["highest"]["name"] == "epochs-3.n_examples-50"
    assert [(end["key"], end["least"], end["most"]) for end in found["ends"]] == [
        (EPOCHS, 1.0, 3.0),
        (SIZE, 25, 50),
    ]
    assert all(end[of.ACCURACY]["above"] == 2 for end in found["ends"])
    assert teaching(SWEEP, [], SETTINGS) == {"ends": []}


def test_growth_is_from_fewest_to_most_steps_with_the_null_beside() -> None:
    found = growth(SWEEP, EXPERIMENTS, ASKED.min_drift_difference)
    drift = next(row for row in found["rows"] if row["measure"] == of.DRIFT)
    assert (drift["fewest"]["steps"], drift["most"]["steps"]) == (4, 21)
    assert drift["rho"] == pytest.approx(1.0)
    assert drift["n"] == found["n"] == 5
    assert [row["mean"] for row in drift["null"]] == [0.01, 0.01]
    assert found["beyond"] == 5
    still = growth(SWEEP, simulated_experiments(SWEEP, learns=False), ASKED.min_drift_difference)
    assert still["beyond"] == 0


def test_matched_sets_sizes_at_equal_steps_beside_steps_at_equal_size() -> None:
    (arm,) = matched(SWEEP, EXPERIMENTS, SETTINGS)
    assert arm["sizes"] == [25, 50]
    assert arm["steps"] == (7, 8)  # 2 epochs of 25 in batches of 8 round up to 8 steps
    assert arm["longer"] == (4, 21)
    assert arm["factors"] == ["3", "3"]  # 4 to 12 steps, 7 to 21
    accuracy = arm["rows"][0]
    assert accuracy["size"]["mean"] == pytest.approx(-0.6 / 30)  # one step fewer
    assert accuracy["size"]["spread"] == pytest.approx(0.6 / 30)
    by_size = {one["held"][SIZE]: one["mean"] for one in accuracy["steps"]}
    assert accuracy["share"] == pytest.approx(1 / 11)  # of the mean of 8 and 14 steps
    assert by_size == {25: pytest.approx(0.6 * 8 / 30), 50: pytest.approx(0.6 * 14 / 30)}


def test_matched_takes_two_finished_experiments() -> None:
    without = [one for one in EXPERIMENTS if one.name != "epochs-2.n_examples-25"]
    assert matched(SWEEP, without, SETTINGS) == []


def test_faithful_counts_circuits_apart_from_random_ones() -> None:
    found = faithful(SWEEP, EXPERIMENTS)
    assert (found["n"], found["below"], found["unknown"]) == (5, 5, 0)
    assert math.isnan(found["rho"])  # all alike
    bare = [replace(one, measures=one.measures[:1]) for one in EXPERIMENTS]
    assert faithful(SWEEP, bare) == {"n": 0, "unknown": 5}


def test_a_rung_names_what_it_changed() -> None:
    before, after = EXPERIMENTS[-2], EXPERIMENTS[-1]
    assert (before.name, after.name) == ("original", "no-warm-up")
    assert changes(before, after) == [("train.warmup_steps", 100, 0)]
    assert "train.lora.alpha" in flattened(before.params)


def test_the_ladder_finds_the_change_that_did_it() -> None:
    names = {one.name: one for one in EXPERIMENTS}
    members = [names["original"], names["no-warm-up"], names["epochs-3.n_examples-50"]]
    found = climb(members, SETTINGS, ASKED)
    last = found["rungs"][-1]
    assert found["learned"] is found["answers"] is found["moved"] is last
    assert all(rung is last for rung in found["largest"].values())
    assert last["since"][of.ACCURACY]["mean"] == pytest.approx(0.6 * 21 / 30)
    assert found["rungs"][0]["since"] == {}
    assert not found["scopes"]
    nothing = rungs(members[:2], SETTINGS)
    assert first_above(nothing, of.DRIFT_BEYOND, 0.02) is None
    assert largest_step(nothing[:1], of.ACCURACY) is None


def test_the_foot_of_the_ladder_says_how_far_up_the_ramp_it_came() -> None:
    of_original = experiment(
        member("original", train__warmup_steps=100, train__learning_rate=2e-5), steps=27
    )
    found = start(of_original)
    assert found["share"] == 0.27
    assert found["reached"] == pytest.approx(5.4e-6)
    without = start(experiment(member("no-warm-up", train__warmup_steps=0), steps=27))
    assert without["share"] == 1.0

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from circuitdrift.scaling import names as of
from circuitdrift.scaling.measures import measure_rows, steps_at_end, values_on_prompts
from simulated_experiments import experiment_tables, moved_table
from simulated_sweep import ONE_RUN
from study_plans import PLANTED, Plan, reduced_plans
from study_tables import study_params


def measured(plan: Plan, **tables: pd.DataFrame) -> pd.DataFrame:
    found = measure_rows(study_params(plan), replace(experiment_tables(plan), **tables))
    assert not found["measure"].duplicated().any()
    assert found["mean"].notna().all()
    return found.set_index("measure")


def test_a_whole_study_has_every_measure_as_its_own_report_has() -> None:
    found, metrics = measured(PLANTED), experiment_tables(PLANTED).metrics
    names = {value for key, value in vars(of).items() if key.isupper()}
    # The simulated circuits have no size of validation.transfer_size.
    assert set(found.index) == names - {of.KEPT, of.KEPT_RANDOM}
    for measure, name in {
        of.ACCURACY: "accuracy",
        of.P_ANSWER: "p_answer",
        of.LOSS: "loss",
        of.DRIFT: "drift_task",
        of.DRIFT_CONTROL: "drift_control",
        of.RECRUITED: "n_recruited",
    }.items():
        assert found.loc[measure, "mean"] == pytest.approx(metrics[name], abs=1e-4)
    assert found.loc[of.ACCURACY, ["n_seeds", "n_prompts"]].tolist() == [5, 12]
    assert found.loc[of.DRIFT_BEYOND, "mean"] == pytest.approx(0.65, abs=0.02)


def test_what_was_learned_stands_beside_the_base_model() -> None:
    evaluation = pd.DataFrame(
        [
            (run, "mapped", checkpoint, step, prompt, "evaluation", correct, p, math.nan, math.nan)
            for run, checkpoint, step, prompt, correct, p in (
                ("mapped-0", "base", 0, "x", 0.0, 0.1),
                ("mapped-0", "base", 0, "y", 1.0, 0.3),
                ("mapped-0", "100", 7, "x", 1.0, 0.5),
                ("mapped-0", "100", 7, "y", 1.0, 0.9),
            )
        ]
        + [
            ("mapped-0", "mapped", "base", 0, "z", "unseen", math.nan, math.nan, 0.125, math.nan),
            ("mapped-0", "mapped", "100", 7, "z", "unseen", math.nan, math.nan, 0.5, math.nan),
            ("mapped-0", "mapped", "base", 0, "c", "control", math.nan, 0.5, math.nan, 3.0),
            ("mapped-0", "mapped", "100", 7, "c", "control", math.nan, 0.5, math.nan, 3.25),
        ],
        columns=[
            *("run", "condition", "checkpoint", "step", "prompt", "role"),
            *("correct_in_type", "p", "false_positive", "loss"),
        ],
    ).assign(type="simple", word=lambda rows: rows["prompt"].str.upper())
    loss = pd.DataFrame(
        {"run": "mapped-0", "step": range(1, 8), "loss": [9.0, 8, 7, 6, 5, 4, 3], "progress": 0.0}
    )
    found = measured(ONE_RUN, evaluation=evaluation, loss=loss)["mean"].to_dict()
    assert (found[of.ACCURACY], found[of.BASE_ACCURACY]) == (1.0, 0.5)
    assert found[of.ACCURACY_GAIN] == 0.5
    assert found[of.CHANCE] == 0.5  # two words of one type
    assert found[of.P_GAIN] == pytest.approx(0.5)  # .4 on x, .6 on y
    assert (found[of.FALSE_POSITIVE], found[of.BASE_FALSE_POSITIVE]) == (0.5, 0.125)
    assert found[of.FORGETTING] == 0.25
    assert found[of.LOSS] == 6.0  # the mean of all seven steps: there is one checkpoint


def test_moved_features_are_counted_against_random_adapters() -> None:
    found = measured(replace(ONE_RUN, seeds=(3,)))
    of_one = {name: found.loc[name, "mean"] for name in (of.MOVED, of.MOVED_RANDOM, of.TESTED)}
    assert of_one == {of.MOVED: 20, of.MOVED_RANDOM: 3, of.TESTED: 1000}  # 13 + 7, 2 + 1
    assert found.loc[of.MOVED_BEYOND, "mean"] == 17
    assert math.isnan(found.loc[of.MOVED, "low"])
    several = measured(PLANTED).loc[of.MOVED_BEYOND]
    assert several["mean"] == 14 + 2 * 2 - 3  # seeds 0 to 4 add 2 each
    assert several["low"] < several["mean"] < several["high"]


def test_several_random_adapters_are_averaged() -> None:
    table = moved_table(ONE_RUN)
    second = table[table["change"] == "random-0"].assign(change="random-1", n_grown=6)
    found = measured(ONE_RUN, moved=pd.concat([table, second]))
    assert found.loc[of.MOVED_RANDOM, "mean"] == 5  # 3 and 7
    assert found.loc[of.MOVED_BEYOND, "mean"] == 9


def test_overlap_beyond_chance_is_there_with_one_seed_and_corrected_with_two() -> None:
    overlap = pd.DataFrame(
        {
            "run": "mapped-0",
            "condition": "mapped",
            "role": "discovery",
            "from": "base",
            "to": "100",
            "threshold": [0.5, 0.6, 0.7, 0.8, 0.9],  # the middle one is told
            "jaccard": [0.0, 0.0, 0.55, 0.0, 0.0],
            "null": 0.1,
            "ceiling": math.nan,
            "corrected": math.nan,
        }
    )
    one = measured(ONE_RUN, overlap=overlap)
    assert one.loc[of.OVERLAP_BEYOND, "mean"] == pytest.approx(0.5)
    assert of.OVERLAP_CORRECTED not in one.index
    assert math.isnan(one.loc[of.OVERLAP_BEYOND, "low"])
    with_ceiling = overlap.assign(ceiling=0.7, corrected=0.75)
    more = with_ceiling.assign(run="mapped-1", jaccard=0.37, corrected=0.45)
    two = measured(ONE_RUN, overlap=pd.concat([with_ceiling, more]))
    assert two.loc[of.OVERLAP_CORRECTED, "mean"] == pytest.approx(0.6)
    beyond = two.loc[of.OVERLAP_BEYOND]
    assert beyond[["mean", "low", "high"]].tolist() == pytest.approx([0.4, 0.3, 0.5])
    assert beyond["n_seeds"] == 2


def test_faithfulness_is_of_mean_ablation_at_the_last_checkpoint() -> None:
    def row(checkpoint: str, ablation: str, circuit: str, measure: str, value: float) -> tuple:
        size = 0.02 if measure == "faithfulness" else math.nan
        return ("mapped", checkpoint, ablation, circuit, measure, size, value, 0.0, 1.0, 1, 4)

    rows = [
        row("100", "mean", "own", "CMD", 0.25),
        row("100", "counterfactual", "own", "CMD", 0.9),
        row("100", "mean", "random", "CMD", 0.5),
        row("100", "mean", "base", "CMD", 0.375),
        row("base", "mean", "own", "CMD", 0.125),
        row("075", "mean", "own", "CMD", 0.9),
        row("100", "mean", "own", "faithfulness", 0.75),
        row("100", "mean", "own", "CPR", math.nan),
    ]
    columns = ["condition", "checkpoint", "ablation", "circuit", "measure", "size"]
    interval = ["mean", "low", "high", "n_seeds", "n_prompts"]
    found = measured(ONE_RUN, faithfulness=pd.DataFrame(rows, columns=columns + interval))
    names = (of.CMD, of.CMD_RANDOM, of.CMD_BASE, of.CMD_OF_BASE, of.KEPT)
    assert [found.loc[name, "mean"] for name in names] == [0.25, 0.5, 0.375, 0.125, 0.75]
    assert of.CPR not in found.index  # not defined


@pytest.mark.parametrize(
    ("plan", "lacking"),
    [
        (ONE_RUN, {of.RECRUITED, of.OVERLAP_CORRECTED, of.OVERLAP_CEILING}),
        (reduced_plans()["one seed"], {of.RECRUITED, of.OVERLAP_CORRECTED}),
        (reduced_plans()["one condition"], {of.RECRUITED}),
        (reduced_plans()["no random adapters"], {of.DRIFT_BEYOND, of.MOVED_RANDOM}),
        (reduced_plans()["not validated"], {of.CMD, of.CMD_RANDOM, of.KEPT}),
    ],
)
def test_what_was_not_measured_has_no_row(plan: Plan, lacking: set[str]) -> None:
    found = set(measured(plan).index)
    assert not found & lacking
    assert {of.ACCURACY, of.DRIFT, of.OVERLAP_BEYOND, of.MOVED, of.LOSS} <= found


def test_another_condition_is_measured_where_mapped_was_not_run() -> None:
    plan = reduced_plans()["another condition"]
    found = measured(plan)
    assert found.loc[of.DRIFT, "mean"] == pytest.approx(0.5, abs=0.02)
    assert of.CMD not in found.index


def test_values_on_prompts_are_the_last_checkpoints() -> None:
    params, tables = study_params(ONE_RUN), experiment_tables(ONE_RUN)
    found = values_on_prompts(params, tables)
    assert set(found) == {of.ACCURACY, of.P_ANSWER, of.DRIFT}
    for measure, table in found.items():
        assert len(table) == 12  # four prompts of three words, one run
        mean = measured(ONE_RUN).loc[measure, "mean"]
        assert table["value"].mean() == pytest.approx(mean)


def test_steps_are_those_of_the_last_checkpoint() -> None:
    assert steps_at_end(study_params(ONE_RUN), experiment_tables(ONE_RUN)) == 8

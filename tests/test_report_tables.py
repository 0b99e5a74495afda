"""The report's tables, by hand, and the stage that reads and writes them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from circuitdrift.core import paths
from circuitdrift.core.files import read_json
from circuitdrift.report.summaries import (
    Study,
    between,
    by_condition,
    by_word,
    checkpoint_loss,
    closed,
    loss_by_step,
    of_units,
    where,
)
from circuitdrift.stages import report
from simulated_study import (
    NOTHING,
    PLANTED,
    REDUCED,
    simulated_study,
    study_params,
    study_tables,
    write_study,
)

PARAMS = study_params(PLANTED)
SMALL = replace(PLANTED, seeds=(0, 2))


def study_of(**tables: pd.DataFrame) -> Study:
    return Study(PARAMS, tables, {})


def test_loss_is_averaged_since_the_checkpoint_before() -> None:
    loss = loss_by_step({"mapped-0": pd.DataFrame({"step": [1, 2, 3, 4], "loss": [8.0, 6, 4, 2]})})
    assert loss["progress"].tolist() == [0.25, 0.5, 0.75, 1]
    assert set(zip(loss["run"], loss["condition"], loss["seed"], strict=True)) == {
        ("mapped-0", "mapped", 0)
    }
    evaluation = pd.DataFrame(
        {
            **{"run": ["base", *["mapped-0"] * 3], "condition": ["base", *["mapped"] * 3]},
            **{"checkpoint": ["base", "025", "050", "100"], "step": [0, 1, 3, 3]},
        }
    )
    table = checkpoint_loss(loss, evaluation).set_index("checkpoint")["loss"]
    # 050: steps 2 and 3. 100 fell on the same step as 050 and shows that step alone.
    assert table.to_dict() == {"025": 8, "050": 5, "100": 4}


def evaluation(rows: list[tuple[str, str, str, str, str, float]]) -> pd.DataFrame:
    """run, role, type, word, prompt, correct: at the last checkpoint."""
    columns = ["run", "role", "type", "word", "prompt", "correct"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(
        condition=table["run"].str.rsplit("-", n=1).str[0],
        checkpoint="100",
        **dict.fromkeys(("p", "frame", "discrimination", "loss"), 0.25),
    )


DRIFT = pd.DataFrame(
    [
        ("mapped-0", "trained", "base", "100", "near", "simple", "blarf", 0.4),
        ("mapped-1", "trained", "base", "100", "near", "simple", "blarf", 0.2),
        ("mapped-0", "random-0", "base", "100", "near", "simple", "blarf", 0.9),
        ("mapped-0", "trained", "075", "100", "near", "simple", "blarf", 0.1),
        ("mapped-0", "trained", "base", "100", "control", np.nan, "control-00", 0.1),
        ("mapped-0", "trained", "base", "100", "control", np.nan, "control-01", 0.3),
    ],
    columns=["run", "change", "from", "to", "role", "type", "unit", "drift"],
).assign(condition="mapped", gain=0.5)


def test_prompts_are_averaged_within_a_run_and_runs_within_a_word() -> None:
    answers = evaluation(
        [
            ("mapped-0", "near", "simple", "blarf", "a", 1.0),
            ("mapped-0", "near", "simple", "blarf", "b", 0.0),
            ("mapped-0", "near", "simple", "blarf", "c", 1.0),
            ("mapped-1", "near", "simple", "blarf", "a", 0.0),
            ("mapped-1", "near", "simple", "gleem", "a", 1.0),
            ("mapped-1", "far", "simple", "gleem", "a", 0.5),
        ]
    )
    units = of_units(study_of(evaluation=answers, drift=DRIFT))
    table = by_word(units).set_index(["measure", "word"])["mean"]
    assert table["accuracy", "blarf"] == pytest.approx((2 / 3 + 0) / 2)
    assert table["accuracy", "gleem"] == 1
    assert table["far_accuracy"].to_dict() == {"gleem": 0.5}
    assert table["choice", "blarf"] == 1  # p / frame
    # Trained runs from base alone; control prompts stand together, their intervals over prompts.
    assert table["drift", "blarf"] == pytest.approx(0.3)
    assert table["drift_control", ""] == pytest.approx(0.2)
    assert where(units, measure="accuracy", unit="blarf")["trials"].tolist() == [4]
    condition = by_condition(units, PARAMS).set_index("measure")
    assert condition.loc["drift_control", "n_words"] == 2
    half = stats.t.ppf(0.975, 1) * 0.1
    assert condition.loc["drift_control", "high"] == pytest.approx(0.2 + half)


def test_an_interval_over_words_by_hand_and_withheld_at_the_end_of_the_scale() -> None:
    words = {"blarf": 0.6, "gleem": 0.7, "drimp": 0.8}
    answers = evaluation(
        [
            (f"mapped-{seed}", role, "simple", word, str(prompt), share)
            for seed in range(2)
            for prompt in range(4)
            for word, value in words.items()
            for role, share in (("near", value), ("far", 1.0))
        ]
    )
    table = by_condition(of_units(study_of(evaluation=answers, drift=DRIFT)), PARAMS)
    row = where(table, measure="accuracy").iloc[0]
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((0.7 - half, 0.7 + half))
    assert 0.93 <= row["coverage"] <= 0.97
    # All right: no interval of no width.
    whole = where(table, measure="far_accuracy").iloc[0]
    assert (whole["mean"], np.isnan(whole["low"])) == (1, True)
    assert whole["coverage"] < 0.93


def test_the_band_between_runs_by_hand() -> None:
    pairs = pd.DataFrame(
        [
            ("mapped-0", "100", "mapped-1", "100", 0.2),
            ("shuffled-0", "100", "shuffled-1", "100", 0.4),
            ("mapped-0", "100", "rotated-1-0", "100", 0.5),
            ("mapped-0", "100", "shuffled-0", "100", 0.9),
            ("mapped-0", "075", "mapped-1", "100", 0.7),
        ],
        columns=["run_a", "checkpoint_a", "run_b", "checkpoint_b", "drift"],
    ).assign(role="near")
    table = between(study_of(between_runs=pairs, drift=DRIFT))
    assert table.set_index(["checkpoint", "what"])["mean"].to_dict() == pytest.approx(
        {
            ("100", "different runs of one condition"): 0.3,
            ("100", "one assignment"): 0.2,
            ("100", "different assignments"): 0.5,
            ("075", "one run, checkpoint to the next"): 0.1,
        }
    )


def test_distance_closed_is_a_ratio_of_means_within_a_word() -> None:
    rows = pd.DataFrame(
        [
            ("blarf", 3.0, -1.0, 1.0),  # half of 4
            ("blarf", 1.0, -1.0, -1.0),  # none of 2: together 2 of 6
            ("gleem", 4.0, 0.0, 2.0),
            ("drimp", 0.5, 0.0, 0.5),  # too near one another
        ],
        columns=["word", "donor_d", "recipient_d", "patched_d"],
    ).assign(type="simple", k=100, nodes="chosen")
    table = closed(study_of(interchange=rows)).set_index("word")
    assert table.loc["blarf", "value"] == pytest.approx(1 / 3)
    assert table.loc["gleem", "value"] == pytest.approx(1 / 2)
    assert np.isnan(table.loc["drimp", "value"])
    assert "less than 1 logits" in table.loc["drimp", "left_out"]
    assert table.loc["", "value"] == pytest.approx(5 / 12)


def test_no_interchange_is_no_distance() -> None:
    table = simulated_study(REDUCED["no interventions, no graphs"]).tables["closed"]
    assert len(table) == 0
    assert {"k", "nodes", "word", "value"} <= set(table)


@pytest.mark.parametrize("plan", [SMALL, replace(NOTHING, seeds=(2, 3), intervened=False)])
def test_the_stage_reads_back_what_the_stages_before_wrote(
    plan: type[SMALL], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(plan, tmp_path)
    found = report._read_tables(study_params(plan))
    planned = study_tables(plan)
    assert set(found) == set(planned)
    for name, table in planned.items():
        keys = list(table.columns)
        assert set(found[name]) == set(keys)
        one, other = (
            tables[keys].astype(object).where(tables.notna(), "").astype(str)
            if len(table) == 0
            else tables[keys].sort_values(keys, ignore_index=True)
            for tables in (found[name], table)
        )
        pd.testing.assert_frame_equal(one, other, check_dtype=False, rtol=1e-7)


def test_the_tables_and_metrics_are_written_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = simulated_study(PLANTED)
    report.write_tables(study)
    first = {path: path.read_bytes() for path in sorted(paths.REPORTS.rglob("*.*"))}
    assert {path.stem for path in first} == {*report.WRITTEN, "study", "verdicts"}
    report.write_tables(report.summarise(study))
    assert {path: path.read_bytes() for path in first} == first
    assert read_json(paths.STUDY_METRICS)["accuracy"] == pytest.approx(0.8, abs=0.02)


def test_what_other_runs_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is not in params.yaml, and interventions in one that is not intervened in."""
    monkeypatch.chdir(tmp_path)
    write_study(SMALL, tmp_path)
    for gone in (paths.RUNS / "mapped-7", paths.interventions("mapped-0")):
        gone.mkdir(parents=True)
    report._remove_other_runs(study_params(SMALL))
    assert not (paths.RUNS / "mapped-7").exists()
    assert not paths.interventions("mapped-0").exists()
    assert paths.interventions("mapped-2").is_dir()
    assert paths.evaluation("base").is_dir()


def test_a_figure_names_no_version_of_what_drew_it() -> None:
    file = io.BytesIO()
    report.save(Figure(figsize=(1, 1)), file)
    assert b"Software" not in file.getvalue()

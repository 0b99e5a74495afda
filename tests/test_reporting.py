from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from circuitdrift import paths
from circuitdrift.artifacts import read_json, write_json, write_table
from circuitdrift.headlines import study_metrics
from circuitdrift.markdown import interval, literal, markdown, number, p_text, p_value
from circuitdrift.reporting import answer, render_report, verdict_metrics
from circuitdrift.stages import report
from circuitdrift.summaries.study import StudyTables
from study_plans import NOTHING, PLANTED, Plan, reduced_plans
from study_tables import ROOT, study_params, study_summaries, study_tables

SECTIONS = [
    "In short",
    "Did it learn the mappings?",
    "Did the circuits move, and by more than chance?",
    "What belongs to the mapping?",
    "Which nodes?",
    "Do interventions confirm it?",
    "Does drift say more than cheap measures?",
    "Nulls and positive control",
    "The original study's claims",
    "What would change the verdicts",
    "What this does not show",
    "Loss beside the original",
]
# What a page must say of a study that lacks something.
SAID = {
    "one condition": ["what belongs to the mapping, and not to", "Only the condition `mapped`"],
    "another condition": [
        "no intervention was made",
        "Without two runs of each, none can be told from chance",
        "it takes two runs of `mapped`",
        "it takes runs of the condition mapped and random adapters",
    ],
    "one seed": [
        "There is one seed",
        "With one seed there is no ceiling",
        "cannot be said with one seed",
        "Without two runs of each, none can be told from chance",
        "how often the search for recruited nodes errs cannot be said",
        "is undecided whatever the numbers: one seed",
    ],
    "one run": ["1 fine-tuning (mapped-3)", "There is one seed", "it takes two runs of `mapped`"],
    "no random adapters": ["No random adapter was attributed"],
    "nothing recruited": [
        "there are no recruited nodes to name",
        "There are no recruited nodes to patch",
        "no node was recruited, so there is nothing to patch",
    ],
    "not validated": ["the recruited nodes were not patched", "no intervention was made"],
    "few prompts": ["on 3 discovery"],
    "no graphs": ["No prompt has an attribution graph"],
    "target unmoved": ["Some cannot be said: training hardly moved the target."],
    "three conditions": ["Trained on unrelated"],
}


def page(plan: Plan, figures: tuple[str, ...] = ()) -> str:
    params, tables = study_params(plan), study_tables(plan)
    summaries = study_summaries(plan)
    return render_report(params, tables, summaries, answer(params, tables, summaries), figures)


def test_the_page_answers_both_questions_with_their_numbers() -> None:
    text = page(PLANTED)
    assert re.findall("^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert "differences between training checkpoints?** Supported, at checkpoint 100" in text
    assert "semantic mappings?** Supported, at checkpoint 100" in text
    assert re.search(r"beyond a random adapter of the same norms: 0\.65\d \[0\.6\d\d, ", text)
    assert "asked for is an interval above 0.200 and p below 0.05: **supported**" in text
    assert "would fall if the interval's lower end" in text
    assert "9 neurons were recruited and 3 retired, for 3 of 3 words" in text
    assert "ranked it first in 10 of 10 runs" in text
    assert "6.669 → 6.938 → 6.782 → 6.784" in text


def test_the_page_turns_with_the_findings() -> None:
    text = page(NOTHING)
    assert "differences between training checkpoints?** Not supported" in text
    assert "would be open again if the interval's upper end" in text
    assert "| found here too" in text


@pytest.mark.parametrize("name", reduced_plans())
def test_a_reduced_study_says_what_it_cannot_say(name: str) -> None:
    text = page(reduced_plans()[name])
    assert re.findall("^## (.+)$", text, re.MULTILINE) == SECTIONS
    for sentence in SAID[name]:
        assert sentence in text


@pytest.mark.parametrize("plan", [PLANTED, NOTHING, *reduced_plans().values()])
def test_nothing_undefined_is_printed(plan: Plan) -> None:
    text = page(plan).replace("happy nan", "")  # a token may be called so
    assert re.findall(r"\b(nan|NaN|None|inf)\b", text) == []
    assert "{" not in text
    blocks = text.split("\n\n")
    assert not any(
        "\n![" in block or block.count("\n|") < 2 < block.count("|--") for block in blocks
    )


def test_only_drawn_figures_are_shown() -> None:
    assert "(figures/" not in page(PLANTED)
    shown = re.findall(r"\(figures/(\w+)\.png\)", page(PLANTED, ("drift", "patching", "loss")))
    assert shown == ["drift", "patching", "loss"]


def test_experiments_compare_by_few_numbers() -> None:
    params, tables = study_params(PLANTED), study_tables(PLANTED)
    found = study_metrics(params, tables, study_summaries(PLANTED))
    assert found == {
        "accuracy": pytest.approx(11 / 12, abs=1e-4),
        "p_answer": pytest.approx(0.86, abs=0.02),
        "loss": pytest.approx((8 / 7 + 8 / 8) / 2 + 0.2, abs=1e-4),
        "drift_task": pytest.approx(0.7, abs=0.02),
        "drift_control": pytest.approx(0.35, abs=0.02),
        "drift_random": pytest.approx(0.05, abs=0.02),
        "overlap_beyond_chance": pytest.approx(0.4 / 0.9, abs=0.02),
        "n_moved": 40,
        "n_moved_random": 3,
        "cmd": pytest.approx(0.1225, abs=0.02),
        "forgetting": 0.0,
        "n_recruited": 9,
        "accuracy_mapped_minus_shuffled": pytest.approx(7 / 12, abs=1e-4),
        "drift_beyond_shuffled": pytest.approx(0.1, abs=0.02),
        "patched_fraction": pytest.approx(0.5, abs=0.01),
    }


def test_numbers_that_were_not_measured_are_not_among_the_metrics() -> None:
    plan = replace(PLANTED, conditions=("mapped",), recruited=False)
    params, tables = study_params(plan), study_tables(plan)
    found = study_metrics(params, tables, study_summaries(plan))
    assert set(found) == {
        *("accuracy", "p_answer", "loss", "drift_task", "drift_control", "drift_random"),
        *("overlap_beyond_chance", "n_moved", "n_moved_random", "cmd", "forgetting"),
    }


def test_the_second_verdict_states_its_limits() -> None:
    params, tables = study_params(PLANTED), study_tables(PLANTED)
    found = verdict_metrics(params, tables, answer(params, tables, study_summaries(PLANTED)))
    assert found["rq2"]["limits"]["mapped"] == {"false_positive": 0.0625, "reverse_accuracy": 0.25}
    assert set(found["rq2"]["limits"]) == {"base", "mapped", "shuffled"}
    assert [found[name]["verdict"] for name in ("rq1", "rq2")] == ["supported", "supported"]


def test_numbers_as_markdown_shows_them() -> None:
    assert [number(value) for value in (0.12345, None, float("nan"))] == ["0.123", "-", "-"]
    assert number(-float("inf")) == "-∞"
    assert [p_value(value) for value in (0.00794, 1e-9, None)] == ["0.0079", "< 0.0001", "-"]
    assert [p_text(value) for value in (0.00794, 1e-9)] == ["p = 0.0079", "p < 0.0001"]
    assert interval({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.500 [0.250, 0.750]"
    assert literal("a|b <bos> *") == r"a\|b \<bos\> \*"


def test_a_table_keeps_names_that_look_like_numbers() -> None:
    table = pd.DataFrame({"checkpoint": ["025"], "x": [float("nan")], "n": [3], "ok": [True]})
    assert re.findall(r"[^| ]+", markdown(table).splitlines()[-1]) == ["025", "-", "3", "yes"]
    assert markdown(table[:0]) == ""


@pytest.fixture
def study_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / paths.ORIGINAL_STUDY, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_study(plan: Plan) -> None:
    """The tables as the stages before the report leave them."""
    tables = study_tables(plan)
    for run, headline in tables.headlines.items():
        write_json(paths.evaluation_metrics(run), headline)
    of_base = tables.evaluation[tables.evaluation["checkpoint"] == "base"]
    one_run = of_base[of_base["run"] == plan.runs[0].name]
    base = one_run.assign(run="base", condition="base", seed=0)
    write_table(paths.evaluation_table("base"), base)
    for run in plan.runs:
        rows = tables.evaluation[tables.evaluation["run"] == run.name]
        write_table(paths.evaluation_table(run.name), rows[rows["checkpoint"] != "base"])
        norms = tables.norms[tables.norms["run"] == run.name]
        write_table(paths.lora_norms(run.name), norms.drop(columns="run"))
        path = paths.training_loss(run.name)
        path.parent.mkdir(parents=True)
        tables.logs[run.name].to_csv(path, sep="\t", index=False)
        if plan.validated and run.condition == "mapped":
            write_interventions(tables, run.name)
    for path, table in (
        (paths.DRIFT_TABLE, tables.drift),
        (paths.PLACE_TABLE, tables.places),
        (paths.FEATURE_TABLE, tables.features),
        (paths.OVERLAP_TABLE, tables.overlap),
        (paths.BETWEEN_RUNS_TABLE, tables.between),
        (paths.RECRUITED_TABLE, tables.recruited),
        (paths.RECRUITMENT_NULLS_TABLE, tables.recruitment_nulls),
        (paths.MOVED_FEATURE_TABLE, tables.moved),
        (paths.POSITIVE_CONTROL_TABLE, tables.positive_control),
    ):
        write_table(path, table)


def write_interventions(tables: StudyTables, run: str) -> None:
    for name in report.INTERVENTIONS:
        table = getattr(tables, name)
        rows = table[table["run"] == run].drop(columns=["run", "condition", "seed"])
        write_table(paths.validation_tables(run) / f"{name}.csv", rows)


@pytest.mark.parametrize("name", ["full", "another condition"])
def test_the_stage_writes_every_table_the_same_each_time(name: str, study_directory: Path) -> None:
    plan = PLANTED if name == "full" else reduced_plans()[name]
    write_study(plan)
    read = {file for file in study_directory.rglob("*") if file.is_file()}
    report.run(study_params(plan))
    written = {
        file: file.read_bytes()
        for file in study_directory.rglob("*")
        if file.is_file() and file not in read
    }
    tables = {file.stem for file in written if file.suffix == ".csv"}
    assert tables == {
        *("loss", "understanding", "drift_summary", "mapping", "mapping_by_place"),
        *("overlap_summary", "faithfulness_summary", "transfer_summary", "patching_summary"),
        *("specificity_summary", "ablation_rank_summary", "baselines", "claims"),
    }
    for file in written:
        if file.suffix == ".csv":
            assert len(pd.read_csv(file, nrows=0).columns) > 2
    assert (study_directory / paths.REPORT).read_text(encoding="utf-8").startswith("# What")
    assert set(read_json(paths.VERDICTS)) == {"rq1", "rq2"}
    report.run(study_params(plan))
    assert all(file.read_bytes() == content for file, content in written.items())


def test_the_page_of_the_files_is_that_of_the_tables(study_directory: Path) -> None:
    write_study(PLANTED)
    report.run(study_params(PLANTED))
    figures = tuple(file.stem for file in (study_directory / paths.FIGURES).iterdir())
    assert paths.REPORT.read_text(encoding="utf-8") == page(PLANTED, figures)


@pytest.mark.usefixtures("study_directory")
def test_other_runs_leave_no_tables() -> None:
    write_study(PLANTED)
    report.run(study_params(replace(PLANTED, seeds=(0, 1))))
    assert not paths.lora_norms("mapped-4").exists()
    assert not paths.validation_tables("mapped-4").exists()
    assert paths.evaluation_table("mapped-1").exists()

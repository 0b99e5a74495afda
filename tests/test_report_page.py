"""The page and its figures, of whole studies and of those that lack something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from circuitdrift.core import paths
from circuitdrift.report import faithfulness, figures
from circuitdrift.report.page import render_report
from circuitdrift.report.style import (
    checkpoint,
    interval,
    literal,
    markdown,
    number,
    p_text,
    percent_interval,
    use_style,
)
from circuitdrift.report.summaries import Study
from circuitdrift.report.verdicts import rq1, rq2
from circuitdrift.stages import report
from simulated_study import NOTHING, PLANTED, REDUCED, simulated_study

STUDIES = {"planted": PLANTED, "nothing": NOTHING, **REDUCED}
ALL = {"summary", "understanding", "drift", "closed", "faithfulness"}
OF_INTERVENTIONS = {"closed", "faithfulness"}
LEFT_OUT = {
    "one condition": {"closed"},
    **dict.fromkeys(("no assignment", "one seed", "two seeds", "one run"), OF_INTERVENTIONS),
    "no interventions, no graphs": OF_INTERVENTIONS,
}


@pytest.fixture(autouse=True)
def _canvas() -> Iterator[None]:
    plt.switch_backend("agg")
    use_style()
    yield
    plt.close("all")


@cache
def drawn(name: str) -> dict[str, Figure]:
    return figures.draw(simulated_study(STUDIES[name]))


def page(study: Study, names: list[str]) -> str:
    criteria = study.tables["criteria"]
    return render_report(study, {"RQ1": rq1(criteria), "RQ2": rq2(criteria)}, names)


def with_criterion(study: Study, question: str, number: int, **values: object) -> Study:
    criteria = study.tables["criteria"].copy()
    row = (criteria["question"] == question) & (criteria["number"] == number)
    for name, value in values.items():
        criteria.loc[row, name] = value
    return replace(study, tables={**study.tables, "criteria": criteria})


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_has_all_sections_its_figures_and_nothing_undefined_or_internal(name: str) -> None:
    names = list(drawn(name))
    assert set(names) == ALL - LEFT_OUT.get(name, set())
    text = page(simulated_study(STUDIES[name]), names)
    assert set(re.findall(r"\(figures/(\w+)\.png\)", text)) == set(names)
    sections = re.findall("^## (.*)", text, re.MULTILINE)
    assert [title[:3] for title in sections[1:4]] == ["RQ1", "RQ2", "RQ3"]
    assert len(sections) == 11
    prose = re.sub(r"\]\(\S+\)|`(tables|data)/\S+`", "", text).replace("happy nan", "")
    assert re.findall(r"\b(nan|NaN|None|inf)\b|\{|\bTrue\b", prose) == []
    assert re.findall(r"\b0\d\d\b(?!\.)(?<!\.\d{3})|[a-z]_[a-z]", prose) == []
    for block in text.split("\n\n"):
        assert "\n![" not in block.strip()
        assert not block.count("\n|") < 2 < block.count("|--")  # a table without rows


def test_the_first_sentences_say_what_came_out_whatever_it_is() -> None:
    study = simulated_study(PLANTED)
    study = with_criterion(study, "RQ2", 1, estimate=0.25, low=0.2, high=0.3, outcome="fails")
    study = with_criterion(study, "RQ2", 2, outcome="undecided", reason="p is above 0.05")
    study = with_criterion(study, "RQ2", 3, low=np.nan, high=np.nan, estimate=0.5)
    study = with_criterion(study, "RQ1", 3, outcome="not measured", reason="it takes two seeds")
    text = page(study, [])
    top = text[: text.index("## The set-up")]
    findings = re.findall("^- (?!\\*\\*RQ)(.*)", top, re.MULTILINE)
    assert len(findings) == 5
    assert "**25 % [20, 30]** of the time" in findings[0]
    assert findings[0].endswith("**Fails**.")
    assert findings[1].endswith("**Undecided** (p is above 0.05).")
    assert "**50 %** of the time" in findings[2]  # an interval withheld is not there
    assert findings[4].endswith("was not measured: it takes two seeds.")
    assert "**not learned** (holds: 3; fails: 1; undecided: 2)" in top


def test_no_axis_names_what_is_internal_and_no_point_is_clipped() -> None:
    for figure in drawn("planted").values():
        figure.canvas.draw()
        for axes in figure.axes:
            labels = [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")]
            labels += [tick.get_text() for tick in [*axes.get_xticklabels()]]
            labels += axes.get_legend_handles_labels()[1]
            assert not re.findall(r"_|\b0\d\d\b", " ".join(labels))
            (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
            for line in axes.lines:
                if line.get_transform() == axes.transData:
                    x, y = (np.asarray(values, float) for values in line.get_data())
                    assert ((left <= x) & (x <= right)).all()
                    assert ((bottom <= y) & (y <= top)).all()
            for bars in axes.containers:
                if isinstance(bars, ErrorbarContainer):
                    ends = np.concatenate(bars.lines[2][0].get_segments())[:, 1]
                    assert ((bottom <= ends) & (ends <= top)).all()


def test_groups_stand_side_by_side_with_the_mean_right_of_its_words() -> None:
    words = pd.DataFrame({"measure": ["a", "a", "b"], "at": "x", "mean": [0.1, 0.3, 0.5]})
    means = pd.DataFrame({"measure": ["a"], "at": "x", "mean": 0.2, "low": 0.1, "high": 0.4})
    axes = plt.subplots()[1]
    places, groups = ["w", "x"], {"a": "A", "b": "B"}
    figures._beside(axes, words, means, x="at", places=places, groups=groups)
    dots = [line for line in axes.lines if line.get_fillstyle() == "none"]
    assert np.concatenate([line.get_xdata() for line in dots]).tolist() == pytest.approx(
        [0.7, 0.7, 1.2]
    )
    (whiskers,) = axes.containers
    assert whiskers.lines[0].get_xdata().tolist() == pytest.approx([0.9])
    assert whiskers.lines[2][0].get_segments()[0][:, 1].tolist() == pytest.approx([0.1, 0.4])
    assert axes.get_legend_handles_labels()[1] == ["B", "A"]


def test_the_band_is_of_two_runs_of_one_condition_at_one_checkpoint() -> None:
    rows = [
        ("mapped-0", "025", "mapped-1", "025", [0.1, 0.3]),
        ("mapped-0", "025", "rotated-1-0", "025", [0.9, 0.9]),
        ("rotated-1-0", "025", "rotated-1-1", "025", [0.4, 0.6]),
        ("rotated-1-0", "025", "rotated-2-0", "025", [0.9, 0.9]),
        ("mapped-0", "025", "mapped-1", "050", [0.9, 0.9]),
    ]
    names = ["run_a", "checkpoint_a", "run_b", "checkpoint_b", "drift"]
    table = pd.DataFrame(rows, columns=names).explode("drift").assign(role="near")
    study = simulated_study(PLANTED)
    study = replace(study, tables={"between_runs": table.astype({"drift": float})})
    assert figures.run_pairs(study, "near")["drift"].tolist() == pytest.approx([0.2, 0.5])


def test_a_figure_has_the_same_bytes_each_time() -> None:
    first, second = BytesIO(), BytesIO()
    for file in (first, second):
        report.save(figures.drift_figure(simulated_study(PLANTED)), file)
    assert first.getvalue() == second.getvalue()
    assert b"Software" not in first.getvalue()


def test_faithfulness_of_a_word_is_a_ratio_of_means_and_blank_below_a_logit() -> None:
    table = pd.DataFrame(
        {
            "size": 0.1,
            "type": "simple",
            "word": ["blarf", "blarf", "gleem"],
            "value": [2.0, 4.0, 0.4],
            "full": [4.0, 6.0, 0.9],
            "empty": [1.0, 1.0, 0.0],
        }
    )
    f = faithfulness.by_word(table, ["size"])
    # (3 - 1) / (5 - 1), where the mean of the runs' own ratios would be (1/3 + 3/5) / 2.
    assert f["f"].tolist()[0] == pytest.approx(0.5)
    assert f["whole"].tolist() == pytest.approx([4.0, 0.9])
    assert f["f"].isna().tolist() == [False, True]
    assert faithfulness.left_out(f) == ["simple/gleem"]


def test_areas_of_a_curve_over_the_logarithm_of_size() -> None:
    curve = pd.DataFrame(
        {
            "size": [1.0, 0.01, 0.1],
            "f": [1.0, 0.0, 1.2],
        }
    ).assign(model="base", ablation="mean", circuit="own", type="simple", word="blarf")
    area = faithfulness.areas(curve).iloc[0]
    # Two decades: (0 + 1.2) / 2 and (1.2 + 1) / 2, over 2; of |1 - f| (1 + .2) / 2 and .2 / 2.
    assert area["cpr"] == pytest.approx((0.6 + 1.1) / 2)
    assert area["cmd"] == pytest.approx((0.6 + 0.1) / 2)
    assert area["smallest"] == 0.1
    assert np.isnan(faithfulness.log_mean([0.5], [1.0]))
    never = faithfulness.areas(curve.assign(f=0.5)).iloc[0]
    assert np.isnan(never["smallest"])


def test_means_over_words_have_the_pooled_t_interval_or_none() -> None:
    table = pd.DataFrame(
        {"circuit": ["own"] * 4 + ["random"] * 2, "type": ["a", "a", "b", "b", "a", "b"]}
    )
    table = table.assign(f=[1.0, 3.0, 5.0, 9.0, 1.0, 2.0])
    params = simulated_study(PLANTED).params
    own, random = faithfulness.over_words(table, ["circuit"], "f", params).to_dict("records")
    # Squares within types: 1 + 1 + 4 + 4, over 2 degrees of freedom, for which t is 4.30265.
    half = 4.302653 * np.sqrt(5 / 4)
    assert (own["mean"], own["n_words"]) == (4.5, 4)
    assert (own["low"], own["high"]) == pytest.approx((4.5 - half, 4.5 + half), rel=1e-6)
    assert random["mean"] == 1.5
    assert np.isnan(random["low"])


def test_transfer_and_specificity_say_in_words_where_they_fail() -> None:
    study = simulated_study(PLANTED)
    text = page(study, [])
    assert "is not specific" not in text
    assert "not told from 0" not in text
    specificity = study.tables["specificity"].copy()
    swapped = (specificity["circuit"] == "spatial") & (specificity["prompts"] == "control")
    specificity.loc[swapped, "ablated"] = 0.5
    transfer = study.tables["transfer"].copy()
    crossed = (transfer["circuit_from"] == "base") & (transfer["model"] == "100")
    transfer.loc[crossed, "value"] = transfer.loc[crossed, "word"].map(
        dict(zip(sorted(transfer["word"].unique()), np.resize([-2.0, 2.0], 6), strict=True))
    )
    changed = {"specificity": specificity, "transfer": transfer}
    text = page(replace(study, tables={**study.tables, **changed}), [])
    assert len(re.findall("circuit of `spatial` is not specific.*control by 3.500", text)) == 1
    assert (
        len(re.findall("circuit of base in the model of 100 % keeps .*not told from 0", text)) == 1
    )
    assert text.count("is not specific") == text.count("not told from 0") == 1


def test_the_sweep_stands_on_the_page_or_is_named_as_not_run() -> None:
    study = simulated_study(PLANTED)
    without = page(study, [])
    assert (
        "**RQ3. How do training length and dataset size change circuits?** Not measured" in without
    )
    assert without.count("not run: `make sweep`") == 4
    part = {"low": np.nan, "high": np.nan, "least": np.nan, "reason": np.nan}
    names = ("range of drift", "range of accuracy", "accuracy in the regime", "drift in the regime")
    values, most = (0.2, 0.6, 0.34, 0.01), (0.5, 0.5, 0.38, 0.1)
    outcomes = ("holds", "undecided", "holds", "holds")
    rq3 = [
        {**part, "number": n, "part": name, "value": value, "most": at_most, "outcome": outcome}
        for n, name, value, at_most, outcome in zip(
            (1, 1, 2, 2), names, values, most, outcomes, strict=True
        )
    ]
    measures = ("accuracy", "drift", "steps", "first_loss", "training_loss")
    sweep = pd.DataFrame(
        [
            {"experiment": name, "condition": condition, "measure": measure, "value": value}
            for name in ("original-regime", "original-904")
            for measure in measures
            for condition, value in (("mapped", 1.0), ("rotated-1", 2.0), ("shuffled", 9.0))
        ]
    )
    tables = {**study.tables, "rq3": pd.DataFrame(rq3), "sweep": sweep}
    text = page(replace(study, tables=tables), [])
    assert "**1 undecided**; **2 holds**" in text
    assert "by **20 %** of what 1 to 10 epochs move them, and balanced accuracy by 60 %" in text
    assert "scaling/figures/length_size.png" in text
    assert "not run" not in text
    assert "drift from base 1.500; two runs" in text  # of the assigned runs
    assert "2 steps: balanced accuracy 150 %" in text


def test_numbers_as_markdown_shows_them() -> None:
    assert [number(value) for value in (0.12345, None, float("nan"))] == ["0.123", "-", "-"]
    assert number(-float("inf")) == "-∞"
    assert [p_text(value) for value in (0.00794, 1e-9)] == ["p = 0.0079", "p < 0.0001"]
    row = {"mean": 0.5, "estimate": -0.001, "low": 0.25, "high": 0.75}
    assert interval(row) == "0.500 [0.250, 0.750]"
    assert percent_interval(row) == "0 % [25, 75]"
    withheld = {**row, "low": float("nan"), "high": float("nan")}
    assert (interval(withheld), percent_interval(withheld)) == ("0.500", "0 %")
    assert [checkpoint(name) for name in ("base", "025", "100")] == ["base", "25 %", "100 %"]
    assert literal("a|b <bos> *") == r"a\|b \<bos\> \*"
    table = pd.DataFrame({"share": ["25"], "x": [float("nan")], "n": [3], "ok": [True]})
    assert re.findall(r"[^| ]+", markdown(table).splitlines()[-1]) == ["25", "-", "3", "yes"]


def test_the_stage_writes_a_page_of_its_figures_and_names_tables_that_are_there(
    tiny_study: Path,
) -> None:
    text = (tiny_study / paths.REPORT).read_text(encoding="utf-8")
    shown = set(re.findall(r"\((figures/\w+\.png)\)", text))
    drawn = (tiny_study / paths.FIGURES).iterdir()
    assert shown == {file.relative_to(tiny_study / paths.REPORTS).as_posix() for file in drawn}
    named = re.findall(r"`(tables/\S+\.csv)`", text)
    assert named
    assert all((tiny_study / paths.REPORTS / name).is_file() for name in named)

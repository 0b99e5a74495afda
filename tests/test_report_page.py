"""The page and its figures, of whole studies and of those that lack something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from circuitdrift.core import paths
from circuitdrift.core.files import read_json
from circuitdrift.report import figures
from circuitdrift.report.page import render_report
from circuitdrift.report.style import (
    interval,
    literal,
    markdown,
    number,
    p_text,
    use_style,
)
from circuitdrift.report.summaries import Study
from circuitdrift.report.verdicts import circuits_differ, claims_table, mappings_taught
from circuitdrift.stages import report
from simulated_study import NOTHING, PLANTED, REDUCED, simulated_study

ALL = {
    *("loss", "understanding", "drift", "overlap", "overlap_thresholds", "change_by_place"),
    *("mapping_by_place", "recruited", "faithfulness", "transfer", "patching", "ablation_rank"),
    "baselines",
}
OF_INTERVENTIONS = {"faithfulness", "transfer", "patching", "ablation_rank"}
LEFT_OUT = {
    "one condition": {"mapping_by_place"},
    "another condition": {"mapping_by_place", "recruited", "baselines", *OF_INTERVENTIONS},
    "one seed": {"recruited", "patching", "baselines"},
    "one run": {"recruited", "patching", "baselines", "mapping_by_place"},
    "nothing recruited": {"recruited", "patching"},
    "no interventions": OF_INTERVENTIONS,
    "target unmoved": {"patching"},
}


@pytest.fixture(autouse=True)
def _canvas() -> Iterator[None]:
    plt.switch_backend("agg")
    use_style()
    yield
    plt.close("all")


def page(study: Study, drawn: list[str]) -> str:
    differ, taught = circuits_differ(study), mappings_taught(study)
    tables = {**study.tables, "claims": claims_table(study, differ, taught)}
    return render_report(replace(study, tables=tables), [differ, taught], drawn)


@pytest.mark.parametrize("name", ["planted", "nothing", *REDUCED])
def test_a_page_has_all_sections_what_was_drawn_and_nothing_undefined(name: str) -> None:
    study = simulated_study({"planted": PLANTED, "nothing": NOTHING, **REDUCED}[name])
    drawn = list(figures.draw(study))
    assert set(drawn) == ALL - LEFT_OUT.get(name, set())
    text = page(study, drawn).replace("happy nan", "")  # a token may be called so
    assert set(re.findall(r"\(figures/(\w+)\.png\)", text)) == set(drawn)
    assert len(re.findall("^## ", text, re.MULTILINE)) == 12
    assert re.findall(r"\b(nan|NaN|None|inf)\b|\{", text) == []
    for block in text.split("\n\n"):
        assert "\n![" not in block.strip()
        assert not block.count("\n|") < 2 < block.count("|--")  # a table without rows


def test_numbers_as_markdown_shows_them() -> None:
    assert [number(value) for value in (0.12345, None, float("nan"))] == ["0.123", "-", "-"]
    assert number(-float("inf")) == "-∞"
    assert [p_text(value) for value in (0.00794, 1e-9)] == ["p = 0.0079", "p < 0.0001"]
    assert interval({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.500 [0.250, 0.750]"
    assert literal("a|b <bos> *") == r"a\|b \<bos\> \*"
    table = pd.DataFrame({"checkpoint": ["025"], "x": [float("nan")], "n": [3], "ok": [True]})
    assert re.findall(r"[^| ]+", markdown(table).splitlines()[-1]) == ["025", "-", "3", "yes"]


def test_the_drift_of_conditions_control_and_random_share_a_panel() -> None:
    drift = simulated_study(PLANTED).tables["drift_summary"]
    containers = figures.drift_figure(drift, ["025", "100"]).axes[0].containers
    assert [container.get_label() for container in containers] == [
        *("task prompts, mapped", "control prompts, mapped", "task prompts, shuffled"),
        *("control prompts, shuffled", "task prompts, random adapter"),
    ]
    lines = [container.lines[0] for container in containers]
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(lines)  # told apart without colour
    of_mapped = drift[(drift["condition"] == "mapped") & (drift["prompts"] == "task")]
    assert lines[0].get_ydata().tolist() == of_mapped["mean"].iloc[[0, 3]].tolist()


def test_maps_have_the_top_layer_above_parts_in_order_and_dots_off_zero() -> None:
    difference = pd.DataFrame(
        {
            "layer": [0, 1, 1],
            "segment": ["last", "last", "word"],
            "mean": [1.0, -2.0, 0.5],
            "low": [0.5, -3.0, -1.0],
            "high": [1.5, -1.0, 2.0],
        }
    )
    axes = figures.mapping_place_figure(difference).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["word", "last"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "0"]
    assert sorted(axes.collections[-1].get_offsets().tolist()) == [[1.5, 0.5], [1.5, 1.5]]
    assert axes.collections[0].get_clim() == (-2, 2)


def test_a_figure_has_the_same_bytes_each_time() -> None:
    change = simulated_study(PLANTED).tables["change"]
    first, second = BytesIO(), BytesIO()
    for file in (first, second):
        report.save(figures.change_figure(change), file)
    assert first.getvalue() == second.getvalue()
    assert b"Software" not in first.getvalue()


def test_the_stage_writes_one_folder_of_tables_and_a_page_of_its_figures(tiny_study: Path) -> None:
    tables = {file.stem: pd.read_csv(file) for file in (tiny_study / paths.REPORT_TABLES).iterdir()}
    assert set(tables) == set(report.WRITTEN)
    assert set(read_json(tiny_study / paths.VERDICTS)) == {"rq1", "rq2"}
    assert {"accuracy", "drift_task"} <= set(read_json(tiny_study / paths.STUDY_METRICS))
    text = (tiny_study / paths.REPORT).read_text(encoding="utf-8")
    shown = set(re.findall(r"\((figures/\w+\.png)\)", text))
    drawn = (tiny_study / paths.FIGURES).iterdir()
    assert shown == {file.relative_to(tiny_study / paths.REPORTS).as_posix() for file in drawn}
    named = re.findall(r"`(tables/\S+\.csv)`", text)
    assert all((tiny_study / paths.REPORTS / name).is_file() for name in named)

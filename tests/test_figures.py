from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift.figures.drift import drift_figure, overlap_figure
from circuitdrift.figures.gallery import draw
from circuitdrift.figures.interventions import patching_figure, transfer_figure
from circuitdrift.figures.places import change_figure, mapping_place_figure
from circuitdrift.figures.style import use_style, whiskers
from circuitdrift.summaries.drift import middle_threshold
from study_plans import CHECKPOINTS, PLANTED, Plan, reduced_plans
from study_tables import study_params, study_summaries, study_tables

ALL = {
    *("loss", "understanding", "drift", "overlap", "overlap_thresholds", "change_by_place"),
    *("mapping_by_place", "recruited", "faithfulness", "transfer", "patching", "ablation_rank"),
    "baselines",
}
REDUCED = {
    "one condition": ALL - {"mapping_by_place"},
    "another condition": ALL
    - {"mapping_by_place", "recruited", "faithfulness", "transfer", "patching", "ablation_rank"}
    - {"baselines"},
    "one seed": ALL - {"recruited", "patching", "baselines"},
    "one run": ALL - {"recruited", "patching", "baselines", "mapping_by_place"},
    "nothing recruited": ALL - {"recruited", "patching"},
    "not validated": ALL - {"faithfulness", "transfer", "patching", "ablation_rank"},
    "target unmoved": ALL - {"patching"},
}


@pytest.fixture(autouse=True)
def _canvas() -> Iterator[None]:
    plt.switch_backend("agg")
    use_style()
    yield
    plt.close("all")


def drawn(plan: Plan) -> dict[str, Figure]:
    params, tables = study_params(plan), study_tables(plan)
    return draw(params, tables, study_summaries(plan))


def test_every_figure_draws() -> None:
    figures = drawn(PLANTED)
    assert set(figures) == ALL
    for figure in figures.values():
        figure.canvas.draw()
        assert all(axes.has_data() for axes in figure.axes)


@pytest.mark.parametrize("name", reduced_plans())
def test_a_figure_without_rows_is_left_out(name: str) -> None:
    figures = drawn(reduced_plans()[name])
    assert set(figures) == REDUCED.get(name, ALL)


def test_the_drift_of_conditions_control_and_random_share_a_panel() -> None:
    axes = drawn(PLANTED)["drift"].axes[0]
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert set(lines) == {
        "task prompts, mapped",
        "control prompts, mapped",
        "task prompts, shuffled",
        "control prompts, shuffled",
        "task prompts, random adapter",
    }
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines.values()}
    assert len(looks) == len(lines)  # told apart without colour


def test_a_line_shows_the_means_that_it_was_given() -> None:
    drift = pd.DataFrame(
        {
            "condition": "mapped",
            "prompts": "task",
            "checkpoint": CHECKPOINTS,
            "mean": [0.1, 0.2, 0.3, 0.4],
            "low": 0.05,
            "high": 0.5,
        }
    )
    line = drift_figure(drift, CHECKPOINTS).axes[0].containers[0].lines[0]
    assert line.get_ydata().tolist() == [0.1, 0.2, 0.3, 0.4]


def test_whiskers_without_end_are_not_drawn() -> None:
    rows = pd.DataFrame({"mean": [1.0, 2.0], "low": [0.5, -float("inf")], "high": [3.0, 2.5]})
    assert whiskers(rows).tolist() == [[0.5, 0.0], [2.0, 0.5]]


def test_the_middle_threshold() -> None:
    assert middle_threshold([0.9, 0.5, 0.7]) == 0.7
    assert middle_threshold([0.5]) == 0.5


def test_overlap_says_that_it_is_not_corrected_with_one_seed() -> None:
    overlap = pd.DataFrame(
        {"condition": ["mapped"], "from": ["base"], "to": ["100"], "jaccard": [0.5]}
    )
    for corrected, label in ((0.4, "chance-corrected overlap"), (None, "not corrected")):
        figure = overlap_figure(overlap.assign(corrected=pd.Series([corrected], dtype=float)))
        assert label in figure.axes[-1].get_ylabel()
        values = figure.axes[0].collections[0].get_array().compressed().tolist()
        assert values == [corrected or 0.5] * 2  # both halves of the matrix


def test_maps_have_the_top_layer_above_and_parts_in_order() -> None:
    change = pd.DataFrame(
        {"layer": [0, 1], "segment": ["last", "word"], "gained": [1.0, 3.0], "lost": [2.0, 0.0]}
    )
    axes = change_figure(change, ("start", "word", "last")).axes
    assert [panel.get_title() for panel in axes[:2]] == ["effect gained", "effect lost"]
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["word", "last"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["1", "0"]


def test_dots_mark_places_whose_interval_excludes_zero() -> None:
    difference = pd.DataFrame(
        {
            "layer": [0, 1, 1],
            "segment": ["last", "last", "word"],
            "mean": [1.0, -2.0, 0.5],
            "low": [0.5, -3.0, -1.0],
            "high": [1.5, -1.0, 2.0],
        }
    )
    axes = mapping_place_figure(difference, ("word", "last")).axes[0]
    # Last is column 1; layer 1 is the upper row.
    assert sorted(axes.collections[-1].get_offsets().tolist()) == [[1.5, 0.5], [1.5, 1.5]]
    assert axes.collections[0].get_clim() == (-2, 2)


def test_transfer_has_its_circuits_down_and_its_models_across() -> None:
    transfer = pd.DataFrame(
        {"circuit_from": ["base", "100"], "model": ["100", "100"], "mean": [0.25, 0.75]}
    )
    mesh = transfer_figure(transfer, ("base", "100")).axes[0].collections[0]
    assert mesh.get_array().filled(-1).tolist() == [[-1, 0.25], [-1, 0.75]]


def test_patching_bars_stand_side_by_side() -> None:
    patching = pd.DataFrame(
        {
            "direction": ["sufficiency", "sufficiency", "necessity", "necessity"],
            "nodes": ["recruited", "random"] * 2,
            "mean": [0.5, 0.1, 0.4, 0.2],
            "low": 0.0,
            "high": 0.6,
        }
    )
    bars = patching_figure(patching).axes[0].patches
    assert [bar.get_height() for bar in bars] == [0.5, 0.4, 0.1, 0.2]
    assert {bar.get_hatch() or "" for bar in bars} == {"", "//"}


def test_several_conditions_have_a_panel_each() -> None:
    figures = drawn(replace(PLANTED, conditions=("mapped", "shuffled", "unrelated"), seeds=(0, 1)))
    titles = [axes.get_title() for axes in figures["understanding"].axes]
    assert titles == [f"trained on: {name}" for name in ("mapped", "shuffled", "unrelated")]

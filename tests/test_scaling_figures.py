from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift.figures.ladder import Line, RungPanel, ladder_figure
from circuitdrift.figures.scaling import Panel, heat_maps_figure, steps_figure
from circuitdrift.figures.style import use_style
from circuitdrift.scaling.gallery import draw
from circuitdrift.scaling.tables import Experiment
from circuitdrift.sweeps.plan import Arm, Sweep
from simulated_sweep import member, simulated_experiments, simulated_sweep

SWEEP = simulated_sweep()


@pytest.fixture(autouse=True)
def _canvas() -> Iterator[None]:
    plt.switch_backend("agg")
    use_style()
    yield
    plt.close("all")


def drawn(experiments: Sequence[Experiment]) -> dict[str, Figure]:
    figures = draw(SWEEP, experiments)
    for figure in figures.values():
        figure.canvas.draw()
        assert all(axes.has_data() for axes in figure.axes)
    return figures


def test_every_figure_draws() -> None:
    figures = drawn(simulated_experiments(SWEEP))
    assert set(figures) == {"grid", "by_steps", "ladder"}
    assert len(figures["grid"].axes) == 6
    assert len(figures["by_steps"].axes) == 6
    assert len(figures["ladder"].axes) == 3


def test_a_partial_sweep_draws_what_there_is() -> None:
    experiments = simulated_experiments(SWEEP)
    assert set(drawn(experiments[:1])) == {"grid", "by_steps"}
    assert set(drawn(experiments[-2:])) == {"ladder"}


def test_a_heat_map_has_the_larger_values_above_and_leaves_gaps() -> None:
    rows = pd.DataFrame(
        {
            "epochs": [1.0, 3.0, 3.0],
            "size": [25, 25, 50],
            "measure": "accuracy",
            "mean": [0.25, 0.5, 0.75],
        }
    )
    axes = heat_maps_figure(rows, "epochs", "size", [Panel("accuracy", "accuracy")]).axes[0]
    values = axes.collections[0].get_array()
    assert np.ma.filled(values, -1).tolist() == [[0.5, 0.75], [0.25, -1]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["3", "1"]
    assert axes.get_xlabel() == "size"
    assert axes.collections[0].get_clim() == (0, 0.75)  # from 0 on: small differences look small


def test_curves_run_over_steps_and_ring_what_has_equal_steps() -> None:
    rows = pd.DataFrame(
        {
            "experiment": ["a", "b", "c", "c"],
            "steps": [10, 4, 10, 10],
            "line": ["size = 25", "size = 25", "size = 50", "size = 50"],
            "matched": [True, False, True, True],
            "measure": ["drift", "drift", "drift", "random"],
            "mean": [0.5, 0.25, 0.75, 0.125],
            "low": [0.4, 0.2, np.nan, np.nan],
            "high": [0.6, 0.3, np.nan, np.nan],
        }
    )
    figure = steps_figure(rows, [Panel("drift", "drift", "random", "random adapters")])
    axes = figure.axes[0]
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert lines["size = 25"].get_xdata() == pytest.approx([4, 10], rel=0.03)
    assert lines["size = 25"].get_ydata().tolist() == [0.25, 0.5]
    assert len({line.get_marker() for line in lines.values()}) == 2  # told apart without colour
    assert axes.get_xscale() == "log"
    rings = axes.collections[-1].get_offsets().tolist()
    assert sorted(height for _, height in rings) == [0.5, 0.75]
    assert rings[0][0] != rings[1][0]  # at equal steps, neither hides the other
    assert [text.get_text() for text in axes.texts] == ["random adapters"]


def test_the_loss_of_another_scope_is_another_line() -> None:
    rows = pd.DataFrame(
        {
            "experiment": ["original", "faster", "answer", "more"],
            "loss_on": ["sentence", "sentence", "answer", "answer"],
            "measure": "loss",
            "mean": [6.0, 5.0, 2.0, 1.0],
            "low": np.nan,
            "high": np.nan,
        }
    )
    panel = RungPanel("loss", (Line("loss", "loss"),), scoped=True)
    axes = ladder_figure(rows, [panel]).axes[0]
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert lines["on the sentence"].get_ydata().tolist() == [6.0, 5.0]
    assert lines["on the answer"].get_xdata().tolist() == [2, 3]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        *("original", "faster", "answer", "more"),
    ]


def test_the_base_model_is_a_line_across_the_rungs() -> None:
    rows = pd.DataFrame(
        {
            "experiment": ["original", "more"] * 2,
            "loss_on": "answer",
            "measure": ["accuracy", "accuracy", "base", "base"],
            "mean": [0.5, 0.75, 0.25, 0.25],
            "low": np.nan,
            "high": np.nan,
        }
    )
    panel = RungPanel("held-out", (Line("accuracy", "accuracy", "base"),), top=1.0)
    axes = ladder_figure(rows, [panel]).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["accuracy, base model", "accuracy"]
    across = next(line for line in axes.lines if line.get_label() == "accuracy, base model")
    assert set(across.get_ydata()) == {0.25}


def test_an_end_that_is_infinite_is_an_arrow() -> None:
    rows = pd.DataFrame(
        {
            "experiment": ["a", "b", "c"],
            "steps": [4, 10, 20],
            "line": "all",
            "matched": False,
            "measure": "CMD",
            "mean": [0.5, 0.25, 0.125],
            "low": [-np.inf, 0.2, 0.1],
            "high": [np.inf, np.inf, 0.2],
        }
    )
    axes = steps_figure(rows, [Panel("CMD", "CMD")]).axes[0]
    arrows = [(*text.xy, *np.sign(text.get_position())) for text in axes.texts]
    assert arrows == [(4, 0.5, 0, 1), (10, 0.25, 0, 1), (4, 0.5, 0, -1)]


def test_a_line_of_the_curves_is_what_differs_in_epochs_alone() -> None:
    rates = [
        member(f"{epochs}-{rate}", train__epochs=epochs, train__learning_rate=rate)
        for epochs in (1.0, 3.0)
        for rate in (1e-3, 5e-4)
    ]
    names = tuple(one.name for one in rates)
    arm = Arm("grid", "product", ("train.epochs", "train.learning_rate"), names)
    ladder = next(arm for arm in SWEEP.arms if arm.kind == "ladder")  # it varies the data's size
    sweep = Sweep((arm, ladder), (*rates, *SWEEP.members), memory_gb=1)
    figure = draw(sweep, simulated_experiments(sweep))["by_steps"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["train.learning_rate = 0.0005", "train.learning_rate = 0.001"]

"""Every figure that a sweep has something to show in, by the name of its file. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from circuitdrift.figures.ladder import Line, RungPanel, ladder_figure
from circuitdrift.figures.scaling import Panel, heat_maps_figure, steps_figure
from circuitdrift.scaling import names as of
from circuitdrift.scaling.frames import (
    EPOCHS,
    LADDER,
    PRODUCT,
    TOGETHER,
    arms_of,
    measured,
    members_of,
    on_the_same_recipe,
    points,
    value_at,
    varied_keys,
)
from circuitdrift.scaling.tables import Experiment
from circuitdrift.scaling.wording import plain
from circuitdrift.sweeps.plan import Sweep

BY_STEPS = "by_steps"
RANDOM_ADAPTERS, RANDOM_CIRCUITS, BASE_MODEL = "random adapters", "random circuits", "base model"

_MAPS = (
    Panel(of.ACCURACY, "accuracy (held out)", top=1),
    Panel(of.P_ANSWER, "p(answer) (held out)", top=1),
    Panel(of.DRIFT, "drift of task prompts", top=1),
    Panel(of.OVERLAP_BEYOND, "node overlap with base\nbeyond chance", top=1),
    Panel(of.MOVED_BEYOND, "moved features\nbeyond random adapters", decimals=0),
    Panel(of.CMD, "CMD of its own circuits\n(lower: more faithful)"),
)
_CURVES = (
    Panel(of.ACCURACY, "accuracy (held out)", of.BASE_ACCURACY, BASE_MODEL),
    Panel(of.P_ANSWER, "p(answer) (held out)", of.BASE_P_ANSWER, BASE_MODEL),
    Panel(of.DRIFT, "drift of task prompts", of.DRIFT_RANDOM, RANDOM_ADAPTERS),
    Panel(of.OVERLAP_BEYOND, "node overlap with base\nbeyond chance"),
    Panel(of.MOVED, "moved features", of.MOVED_RANDOM, RANDOM_ADAPTERS),
    Panel(
        of.CMD, "CMD of its own circuits\n(lower: more faithful)", of.CMD_RANDOM, RANDOM_CIRCUITS
    ),
)
_RUNGS = (
    RungPanel("training loss\n(nats per target token)", (Line(of.LOSS, "loss"),), scoped=True),
    RungPanel(
        "held-out prompts",
        (
            Line(of.ACCURACY, "accuracy", of.BASE_ACCURACY),
            Line(of.P_ANSWER, "p(answer)", of.BASE_P_ANSWER),
        ),
        top=1.02,
    ),
    RungPanel(
        "drift from base",
        (
            Line(of.DRIFT, "task prompts"),
            Line(of.DRIFT_CONTROL, "control prompts"),
            Line(of.DRIFT_RANDOM, f"task prompts, {RANDOM_ADAPTERS}"),
        ),
    ),
)


def draw(sweep: Sweep, experiments: Sequence[Experiment]) -> dict[str, Figure]:
    """Heat maps of each product arm of two keys, curves over steps, each ladder.

    Under the arm's name; a figure with nothing to show is left out.
    """
    drawn: dict[str, Figure] = {}
    for arm in arms_of(sweep, PRODUCT):
        members = members_of(experiments, arm)
        panels = _present(_MAPS, members)
        if len(arm.keys) == 2 and members and panels:
            rows = points(members, arm.keys, [panel.measure for panel in panels])
            drawn[arm.name] = heat_maps_figure(rows, *arm.keys, panels)
    recipe = on_the_same_recipe(sweep, experiments)
    panels = _present(_CURVES, recipe)
    if recipe and panels:
        drawn[BY_STEPS] = steps_figure(_by_steps(sweep, recipe, panels), panels)
    for arm in arms_of(sweep, LADDER):
        members = members_of(experiments, arm)
        if len(members) > 1:
            drawn[arm.name] = ladder_figure(_rungs(members), _RUNGS)
    return drawn


def _present(panels: Sequence[Panel], experiments: Sequence[Experiment]) -> list[Panel]:
    return [
        panel
        for panel in panels
        if any(measured(experiment, panel.measure) for experiment in experiments)
    ]


def _by_steps(sweep: Sweep, recipe: Sequence[Experiment], panels: Sequence[Panel]) -> pd.DataFrame:
    """Points with their line (of experiments that differ in epochs alone), line after line, and
    whether they belong to an arm of equal steps."""
    names = [name for panel in panels for name in (panel.measure, panel.null) if name]
    matched = {name for arm in arms_of(sweep, TOGETHER) for name in arm.members}
    keys = [
        key
        for key in varied_keys(sweep)
        if key != EPOCHS and len({value_at(one.params, key) for one in recipe}) > 1
    ]
    ordered = sorted(recipe, key=lambda one: [value_at(one.params, key) for key in keys])
    lines = {
        one.name: ", ".join(f"{key} = {plain(value_at(one.params, key))}" for key in keys)
        for one in ordered
    }
    rows = points(ordered, [], names)
    return rows.assign(line=rows["experiment"].map(lines), matched=rows["experiment"].isin(matched))


def _rungs(members: Sequence[Experiment]) -> pd.DataFrame:
    lines = [line for panel in _RUNGS for line in panel.lines]
    measures = [name for line in lines for name in (line.measure, line.base) if name]
    rows = points(members, [], measures)
    loss_on = {member.name: member.params.train.loss_on for member in members}
    return rows.assign(loss_on=rows["experiment"].map(loss_on))

"""A simulated sweep, its arms as in the shipped one, and experiments with measures put in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from circuitdrift.config.params import Params
from circuitdrift.scaling import names as of
from circuitdrift.scaling.tables import Experiment
from circuitdrift.sweeps.plan import Arm, Member, Sweep
from study_plans import Plan
from study_tables import study_params

ONE_RUN = Plan(conditions=("mapped",), seeds=(0,), recruited=False)
EPOCHS, SIZE = "train.epochs", "dataset.n_examples"
PROMPTS = ("a", "b", "c", "d")

Numbers = tuple[float, float, float]


def changed(params: Params, changes: Mapping[str, Any]) -> Params:
    """``params`` with the values of dotted keys."""
    raw = params.model_dump(mode="json")
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = raw
        for inner in sections:
            section = section[inner]
        section[name] = value
    return Params.model_validate(raw)


def member(name: str, plan: Plan = ONE_RUN, **changes: Any) -> Member:
    """Keys with ``__`` for the dot."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return Member(name, dotted, changed(study_params(plan), dotted))


def grid_member(epochs: float, size: int, plan: Plan = ONE_RUN) -> Member:
    name = f"epochs-{epochs:g}.n_examples-{size}"
    return member(name, plan, train__epochs=epochs, dataset__n_examples=size)


def simulated_sweep(plan: Plan = ONE_RUN) -> Sweep:
    """Two by two, an arm of equal steps, a ladder of three rungs that ends in the grid."""
    grid = [grid_member(epochs, size, plan) for epochs in (1.0, 3.0) for size in (25, 50)]
    equal = [grid_member(2.0, 25, plan), grid_member(1.0, 50, plan)]
    original = {"dataset__n_examples": 9, "train__epochs": 3.0, "train__batch_size": 1}
    ladder = [
        member("original", plan, **original, train__warmup_steps=100, train__learning_rate=2e-5),
        member("no-warm-up", plan, **original, train__learning_rate=2e-5),
        grid[-1],
    ]
    arms = (
        Arm("grid", "product", (EPOCHS, SIZE), tuple(one.name for one in grid)),
        Arm("matched-steps", "together", (SIZE, EPOCHS), tuple(one.name for one in equal)),
        Arm("ladder", "ladder", ("train.warmup_steps",), tuple(one.name for one in ladder)),
    )
    members = {one.name: one for one in (*grid, *equal, *ladder)}
    return Sweep(arms, tuple(members.values()), memory_gb=1)


def measure_table(values: Mapping[str, float | Numbers], n_seeds: int = 1) -> pd.DataFrame:
    """A row per measure; a lone number has no interval."""
    rows = [
        {
            "measure": measure,
            **dict(zip(("mean", "low", "high"), _numbers(value), strict=True)),
            "n_seeds": n_seeds,
            "n_prompts": None if isinstance(value, float | int) else len(PROMPTS),
        }
        for measure, value in values.items()
    ]
    return pd.DataFrame(rows).astype({"n_seeds": "Int64", "n_prompts": "Int64"})


def _numbers(value: float | Numbers) -> Numbers:
    return (value, math.nan, math.nan) if isinstance(value, float | int) else value


def on_prompts(values: Sequence[float], run: str = "mapped-0") -> pd.DataFrame:
    prompts = [f"prompt-{index}" for index in range(len(values))]
    return pd.DataFrame({"run": run, "prompt": prompts, "value": values})


def experiment(
    of_member: Member,
    arms: tuple[str, ...] = ("grid",),
    steps: int = 10,
    measures: Mapping[str, float | Numbers] | None = None,
    prompts: Mapping[str, Sequence[float]] | None = None,
) -> Experiment:
    return Experiment(
        name=of_member.name,
        arms=arms,
        revision="0" * 40,
        params=of_member.params,
        steps=steps,
        measures=measure_table(measures or {of.ACCURACY: 0.5}),
        prompts={name: on_prompts(values) for name, values in (prompts or {}).items()},
    )


def simulated_experiments(sweep: Sweep, learns: bool = True) -> list[Experiment]:
    """Every member finished. Measures grow with steps where it learns, but not of the rungs that
    stay at the original's learning rate."""
    return [_simulated(sweep, one, learns) for one in sweep.members]


def _simulated(sweep: Sweep, one: Member, learns: bool) -> Experiment:
    train, size = one.params.train, one.params.dataset.n_examples
    steps = math.ceil(train.epochs * math.ceil(size / train.batch_size))
    taught = steps / 30 if learns and train.learning_rate > 1e-4 else 0.0
    accuracy, p, drift = 0.25 + 0.6 * taught, 0.01 + 0.8 * taught, 0.01 + 0.5 * taught
    values: dict[str, float | Numbers] = {
        of.ACCURACY: (accuracy, accuracy - 0.1, accuracy + 0.1),
        of.BASE_ACCURACY: (0.25, 0.1, 0.4),
        of.ACCURACY_GAIN: (accuracy - 0.25, accuracy - 0.3, accuracy - 0.2),
        of.P_ANSWER: (p, p - 0.005, p + 0.1),
        of.BASE_P_ANSWER: (0.01, 0.005, 0.02),
        of.P_GAIN: (p - 0.01, p - 0.02, p),
        of.LOSS: 7 - 6 * taught,
        of.DRIFT: (drift, drift - 0.005, drift + 0.05),
        of.DRIFT_CONTROL: (drift / 2, drift / 4, drift),
        of.DRIFT_RANDOM: (0.01, 0.005, 0.02),
        of.DRIFT_BEYOND: (drift - 0.01, drift - 0.015, drift),
        of.OVERLAP: 0.9 - 0.5 * taught,
        of.OVERLAP_NULL: 0.1,
        of.OVERLAP_BEYOND: (0.8 - 0.5 * taught) / 0.9,
        of.MOVED: 1000 * taught,
        of.MOVED_RANDOM: 3,
        of.MOVED_BEYOND: 1000 * taught - 3,
        of.TESTED: 221184,
        of.CMD: (0.1, 0.05, 0.2),
        of.CMD_RANDOM: (0.4, 0.3, 0.5),
        of.CMD_BASE: (0.15, 0.1, 0.3),
        of.CMD_OF_BASE: (0.2, 0.1, math.inf),
        of.KEPT: (0.8, 0.7, 0.9),
        of.FORGETTING: (-0.1, -0.2, 0.0),
        of.FALSE_POSITIVE: (0.5, 0.4, 0.6),
    }
    jitter = (-0.02, 0.0, 0.01, 0.01)
    prompts = {
        measure: [level + noise for noise in jitter]
        for measure, level in ((of.ACCURACY, accuracy), (of.P_ANSWER, p), (of.DRIFT, drift))
    }
    arms = tuple(arm.name for arm in sweep.arms if one.name in arm.members)
    return experiment(one, arms, steps, values, prompts)

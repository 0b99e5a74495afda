"""What can be refused before any compute: params.yaml, the constraints, and both together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from circuitdrift import paths
from circuitdrift.config import Params, load_params
from circuitdrift.constraints import Constraints, load_constraints
from circuitdrift.dataset import Example
from circuitdrift.errors import InputError, Problem
from circuitdrift.examples import refused_count
from circuitdrift.identifiers import Run
from circuitdrift.training_file import training_pool


def check_study(root: Path) -> Params:
    """Read params.yaml and the constraints below ``root`` and hold them against each other.

    Raises:
        InputError: naming every refused value.
    """
    params = load_params(root / paths.PARAMS)
    constraints = load_constraints(root / paths.CONSTRAINTS)
    if problems := list(
        _conflicts(
            params, constraints, training_pool(params.dataset.examples_from, constraints, root)
        )
    ):
        raise InputError(*problems)
    return params


def run_named(name: str, params: Params) -> Run:
    """The run of the study that is called ``name``.

    Raises:
        InputError: if params.yaml has no such run.
    """
    runs = {run.name: run for run in params.runs.all}
    if name not in runs:
        problem = Problem(
            where="params.yaml: runs",
            got=name,
            rule=f"a run of the study: {', '.join(runs)}",
            remedy="name one of these, or add its condition and seed",
        )
        raise InputError(problem)
    return runs[name]


def _conflicts(params: Params, constraints: Constraints, pool: list[Example]) -> Iterator[Problem]:
    if problem := refused_count(pool, params.dataset.n_examples):
        yield problem
    available = {
        "discovery_prompts_per_word": (
            params.attribution.discovery_prompts_per_word,
            min(len(type_.discovery) for type_ in constraints.types.values()),
            "discovery prompts for each word",
        ),
        "control_prompts": (
            params.attribution.control_prompts,
            len(constraints.control),
            "control prompts",
        ),
    }
    for key, (asked, most, what) in available.items():
        if asked > most:
            yield Problem(
                where=f"params.yaml: attribution.{key}",
                got=asked,
                rule=f"at most {most}: data/constraints.yaml has {most} {what}",
                remedy=f"set it to {most} or less, or add {what} there",
            )

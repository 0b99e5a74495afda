"""What can be refused before any compute: params.yaml, the constraints, and both together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from circuitdrift import paths
from circuitdrift.config.params import Params, load_params
from circuitdrift.constraints import Constraints, load_constraints
from circuitdrift.dataset import Example
from circuitdrift.errors import InputError, Problem
from circuitdrift.examples import refused_count, unrelated_sentences
from circuitdrift.identifiers import Run
from circuitdrift.training_file import training_pool

# A key of params.yaml, the most it may be, why, and what else to do than to lower it.
Limit = tuple[str, int, str, str]

# Keys that count some of the prompts that another key counts.
_PART_OF = {
    "attribution.graph_prompts_per_word": "attribution.discovery_prompts_per_word",
    "attribution.graph_control_prompts": "attribution.control_prompts",
    "validation.prompts_per_word": "attribution.evaluation_prompts_per_word",
    "validation.ranked_prompts_per_word": "validation.prompts_per_word",
}


def check_study(root: Path) -> Params:
    """Read params.yaml and the constraints below ``root`` and hold them against each other.

    Raises:
        InputError: naming every refused value.
    """
    params = load_params(root / paths.PARAMS)
    check_params(params, root, source=paths.PARAMS.name)
    return params


def check_params(params: Params, root: Path, source: str) -> None:
    """Hold params against the constraints and the examples below ``root``.

    Args:
        source: where the params were set, for the words of a refusal.

    Raises:
        InputError: naming every refused value.
    """
    constraints = load_constraints(root / paths.CONSTRAINTS)
    pool = training_pool(params.dataset.examples_from, constraints, root)
    if problems := list(_conflicts(params, constraints, pool)):
        raise InputError(*(replace(problem, where=_named(problem, source)) for problem in problems))


def _named(problem: Problem, source: str) -> str:
    return problem.where.replace(paths.PARAMS.name, source, 1)


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
    limits = (*_limits_of_constraints(params, constraints), *_limits_of_params(params))
    for key, most, reason, alternative in limits:
        asked = attrgetter(key)(params)
        if asked > most:
            yield Problem(
                where=f"params.yaml: {key}",
                got=asked,
                rule=f"at most {most}: {reason}",
                remedy=f"set it to {most} or less, or {alternative}",
            )
    if untrained := sorted(set(params.validation.conditions) - set(params.runs.conditions)):
        yield Problem(
            where="params.yaml: validation.conditions",
            got=", ".join(untrained),
            rule=f"conditions that are trained: {', '.join(params.runs.conditions)}",
            remedy="take it out, or add it to runs.conditions",
        )


def _limits_of_constraints(params: Params, constraints: Constraints) -> Iterator[Limit]:
    types = constraints.types.values()
    most = {
        "attribution.discovery_prompts_per_word": (
            min(len(type_.discovery) for type_ in types),
            "discovery prompts for each word",
        ),
        "attribution.evaluation_prompts_per_word": (
            min(len(type_.evaluation) for type_ in types),
            "evaluation prompts for each word",
        ),
        "attribution.control_prompts": (len(constraints.control), "control prompts"),
    }
    if "unrelated" in params.runs.conditions:
        sentences = unrelated_sentences(constraints)
        most["dataset.n_examples"] = (len(sentences), "unrelated sentences")
    file = paths.CONSTRAINTS.as_posix()
    for key, (count, what) in most.items():
        yield key, count, f"{file} has {count} {what}", f"add {what} there"


def _limits_of_params(params: Params) -> Iterator[Limit]:
    for key, whole in _PART_OF.items():
        most = attrgetter(whole)(params)
        yield key, most, f"{whole} is {most}, and these are some of them", f"raise {whole}"

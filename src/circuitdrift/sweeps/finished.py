"""Which experiments of a sweep are finished: run with their params and with today's code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from circuitdrift import paths
from circuitdrift.config.params import Params
from circuitdrift.errors import InputError
from circuitdrift.git import git
from circuitdrift.sweeps.git import Experiment, content_ids, experiments
from circuitdrift.sweeps.plan import Member, Sweep
from circuitdrift.validation import read_yaml, validate

PIPELINE = "dvc.yaml"


def finished_members(root: Path, sweep: Sweep) -> dict[str, str]:
    """The revision of each member's experiment, for those that have one.

    An experiment counts, whatever commit it was derived from, where its params are the member's
    and every file of code and input that dvc.yaml lists has the content it has in the last commit.

    Returns:
        name -> git revision, 40 hexadecimal digits.
    """
    members = {member.name: member for member in sweep.members}
    inputs = list(_inputs(root))
    today: dict[str, dict[str, str]] = {}
    found: dict[str, str] = {}
    for experiment in experiments(root):
        member = members.get(experiment.name)
        if member is None or member.name in found:
            continue
        names = [*inputs, member.params.dataset.examples_from]
        if member.name not in today:
            today[member.name] = content_ids(root, "HEAD", names)
        same_code = content_ids(root, experiment.revision, names) == today[member.name]
        if same_code and _params(root, experiment) == member.params:
            found[member.name] = experiment.revision
    return {name: found[name] for name in members if name in found}


def unfinished(sweep: Sweep, finished: dict[str, str]) -> list[Member]:
    return [member for member in sweep.members if member.name not in finished]


def _inputs(root: Path) -> Iterator[str]:
    """dvc.yaml, and the files that stages depend on and none makes."""
    yield PIPELINE
    stages: dict[str, dict[str, Any]] = read_yaml(root / PIPELINE)["stages"]
    outs = [out for stage in stages.values() for out in stage["outs"]]
    made = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    deps = {dep for stage in stages.values() for dep in stage["deps"] if "$" not in dep}
    yield from sorted(dep for dep in deps if not any(_overlap(dep, out) for out in made))


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are the same, or one lies in the other."""
    return all(a == b for a, b in zip(one.split("/"), other.split("/"), strict=False))


def _params(root: Path, experiment: Experiment) -> Params | None:
    """None where its params.yaml is one of another version of the study."""
    text = git(root, "show", f"{experiment.revision}:./{paths.PARAMS.as_posix()}")
    try:
        return validate(Params, YAML(typ="safe", pure=True).load(text), experiment.name)
    except InputError:
        return None

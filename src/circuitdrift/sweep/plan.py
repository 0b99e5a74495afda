"""sweep.yaml: which experiments a sweep consists of, and what each sets in params.yaml."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import psutil
from pydantic import Field, PositiveFloat, model_validator
from pydantic_core import PydanticCustomError

from circuitdrift.check import check_base, check_params
from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.yaml import read_yaml, validate
from circuitdrift.params import OWN, Base, Listed, Params, Section

SOURCE = paths.SWEEP.as_posix()
DIRECTORY = "base.directory"
Changes: TypeAlias = dict[str, Any]
ExperimentName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")]


class Arm(Section):
    """Experiments that answer one question together; sweep.yaml says what the kinds are."""

    every: Changes = Field(default_factory=dict)
    product: dict[str, Listed[Any]] | None = Field(None, min_length=1)
    together: dict[str, Listed[Any]] | None = Field(None, min_length=1)
    named: dict[ExperimentName, Changes] | None = Field(None, min_length=1)
    rungs: dict[ExperimentName, Changes] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Arm:
        if len(self.model_fields_set - {"every"}) != 1:
            kinds = "product, together, named or rungs"
            raise PydanticCustomError("kind", f"Input should have one key of {kinds}")
        if self.together and len({len(values) for values in self.together.values()}) > 1:
            raise PydanticCustomError("together", "Input should have equally many values a key")
        return self

    @property
    def experiments(self) -> Iterator[tuple[str, Changes]]:
        """The name and the changes of each experiment, without those of `every`."""
        if self.named or self.rungs:
            before: Changes = {}
            for name, changes in (self.named or self.rungs or {}).items():
                yield name, {**before, **changes}
                before = {**before, **changes} if self.rungs else {}
            return
        lists = self.product or self.together or {}
        rows = product(*lists.values()) if self.product else zip(*lists.values(), strict=True)
        for values in rows:
            changes = dict(zip(lists, values, strict=True))
            yield _name(changes), changes


class SweepFile(Section):
    every: Changes
    memory_gb: PositiveFloat  # that one experiment takes
    arms: Annotated[dict[str, Arm], Field(min_length=1)]


@dataclass(frozen=True)
class Experiment:
    name: str  # of the DVC experiment
    changes: Mapping[str, Any]  # by dotted key of params.yaml
    params: Mapping[str, Any]  # all of params.yaml with these changes


@dataclass(frozen=True)
class Sweep:
    """All of sweep.yaml, each experiment once, though several arms may name it."""

    experiments: tuple[Experiment, ...]
    arms: Mapping[str, tuple[str, ...]]  # each arm's experiments in order
    memory_gb: float

    def arms_with(self, name: str) -> list[str]:
        return [arm for arm, names in self.arms.items() if name in names]


def load_sweep(root: Path) -> Sweep:
    """Read sweep.yaml and params.yaml below ``root``, and check every experiment's params.

    Raises:
        InputError: for params that are refused, or one name for two experiments.
    """
    file = validate(SweepFile, read_yaml(root / paths.SWEEP), SOURCE)
    params = read_yaml(root / paths.PARAMS)
    validate(Params, params, source=paths.PARAMS.name)
    experiments: dict[str, Experiment] = {}
    texts_checked: set[tuple[Base, str, str]] = set()
    arms: dict[str, tuple[str, ...]] = {}
    for arm_name, arm in file.arms.items():
        names = []
        for name, varied in arm.experiments:
            changes = {**file.every, **arm.every, **varied}
            changes |= _whole_directory(_changed(params, changes), root)
            changed = _changed(params, changes)
            # An experiment that several arms ask for keeps its first name.
            same = [each.name for each in experiments.values() if each.params == changed]
            names.append(same[0] if same else name)
            if same:
                continue
            if name in experiments:
                raise InputError(
                    Problem(
                        where=f"{SOURCE}: arms.{arm_name}",
                        got=name,
                        rule="experiments with different params have different names",
                        remedy="name it differently under `named`, or vary the key that differs",
                    )
                )
            source = f"{SOURCE} ({name})"
            checked = validate(Params, changed, source)
            check_params(checked, root, source)
            texts = (checked.base, checked.dataset.constraints, checked.dataset.examples_from)
            if texts not in texts_checked:  # reading a tokenizer takes a second
                check_base(checked, root)
                texts_checked.add(texts)
            experiments[name] = Experiment(name, changes, changed)
        arms[arm_name] = tuple(names)
    return Sweep(tuple(experiments.values()), arms, file.memory_gb)


def _whole_directory(params: Mapping[str, Any], root: Path) -> Changes:
    """The change that makes an own base model's directory a whole path.

    An experiment of the queue runs in a folder of its own, where a relative path would lead
    elsewhere, params.yaml's too.
    """
    base = params["base"] if isinstance(params["base"], dict) else {}
    own = base.get("directory")
    if base.get("model") != OWN or not isinstance(own, str):
        return {}
    return {DIRECTORY: str((root / Path(own).expanduser()).resolve())}


def fitting_workers(sweep: Sweep) -> int:
    """As many as there are cores for their threads, and memory; at least one."""
    threads = max(experiment.params["compute"]["threads"] for experiment in sweep.experiments)
    # The cores that this process may use, where the system says so (macOS does not).
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    by_memory = int(psutil.virtual_memory().available / (sweep.memory_gb * 1e9))
    return max(1, min((cores or 1) // threads, by_memory, len(sweep.experiments)))


def _changed(params: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """params.yaml with these changes; a key that it does not have stands there for its check."""
    changed = deepcopy(dict(params))
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = changed
        for name in sections:
            if not isinstance(section.get(name), dict):
                section[name] = {}  # no section of params.yaml: Params refuses it
            section = section[name]
        section[last] = value
    return changed


def _name(changes: Changes) -> str:
    """Such as n_examples-50-epochs-3: in the order of the keys' full names, so that equal
    experiments of two arms have one name."""
    last_parts = [key.rpartition(".")[2] for key in changes]
    parts = []
    for key, value in sorted(changes.items()):
        short = key.rpartition(".")[2]
        text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
        # What git allows in the name of a ref, where ".." says something else.
        text = re.sub(r"[^\w.+-]|\.\.+", "-", text)
        parts.append(f"{short if last_parts.count(short) == 1 else key}-{text.strip('.-')}")
    return "-".join(parts)

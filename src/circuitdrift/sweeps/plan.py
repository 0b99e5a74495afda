"""Which experiments a sweep consists of: sweep.yaml held against params.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitdrift import paths
from circuitdrift.config.params import Params
from circuitdrift.errors import InputError, Problem
from circuitdrift.preflight import check_params
from circuitdrift.sweeps.sweep_file import Changes, SweepFile
from circuitdrift.validation import read_yaml, validate

SOURCE = paths.SWEEP.as_posix()


@dataclass(frozen=True)
class Member:
    """One experiment.

    Attributes:
        name: of the DVC experiment.
        changes: dotted key of params.yaml -> value, what the sweep sets in every one included.
        params: params.yaml with these changes.
    """

    name: str
    changes: Mapping[str, Any]
    params: Params


@dataclass(frozen=True)
class Arm:
    """Experiments that answer one question together.

    Attributes:
        kind: product, together or ladder.
        keys: dotted keys that it varies.
        members: names of its experiments in order; an experiment may be in several arms.
    """

    name: str
    kind: str
    keys: tuple[str, ...]
    members: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """All arms, and each experiment once.

    Attributes:
        memory_gb: what one experiment takes.
    """

    arms: tuple[Arm, ...]
    members: tuple[Member, ...]
    memory_gb: float


def load_sweep(root: Path) -> Sweep:
    """Read sweep.yaml and params.yaml below ``root``.

    Raises:
        InputError: if either file is not as it must be, if a key is none of params.yaml's, if an
            experiment's params would be refused, or if two different ones would have one name.
    """
    file = validate(SweepFile, read_yaml(root / paths.SWEEP), SOURCE)
    params = read_yaml(root / paths.PARAMS)
    validate(Params, params, source=paths.PARAMS.name)
    if unknown := list(_unknown_keys(file, params)):
        raise InputError(*unknown)
    arms: list[Arm] = []
    members: list[Member] = []
    problems: list[Problem] = []
    for name, arm in file.arms.items():
        names = []
        for given, varied in arm.changes:
            changes = {**file.every, **varied}
            try:
                member = _member(given or _name(varied), changes, params, root)
            except InputError as error:
                problems.extend(error.problems)
                continue
            same = next((each for each in members if each.params == member.params), None)
            if same is None and member.name in {each.name for each in members}:
                problems.append(_taken(name, member.name))
            elif same is None:
                members.append(member)
            names.append((same or member).name)
        arms.append(Arm(name, arm.kind, arm.keys, tuple(names)))
    if problems:
        raise InputError(*problems)
    return Sweep(tuple(arms), tuple(members), file.memory_gb)


def _member(name: str, changes: Changes, params: dict[str, Any], root: Path) -> Member:
    changed = deepcopy(params)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = changed
        for part in sections:
            section = section[part]
        section[last] = value
    checked = validate(Params, changed, source=f"{SOURCE} ({name})")
    check_params(checked, root, source=f"{SOURCE} ({name})")
    return Member(name, changes, checked)


def _name(varied: Changes) -> str:
    """Such as n_examples-50-epochs-3: what varies, in the order of the keys' full names, so that
    equal experiments of two arms have one name."""
    last_parts = [key.rpartition(".")[2] for key in varied]
    parts = []
    for key in sorted(varied):
        short = key.rpartition(".")[2]
        written = short if last_parts.count(short) == 1 else key
        parts.append(f"{written}-{_in_a_name(varied[key])}")
    return "-".join(parts)


def _in_a_name(value: Any) -> str:
    """As git allows it in the name of a ref."""
    text = "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return "".join(char if char.isalnum() or char in "._+-" else "-" for char in text).strip(".-")


def _unknown_keys(file: SweepFile, params: dict[str, Any]) -> Iterator[Problem]:
    known = list(_leaves(params))
    keys = dict.fromkeys(file.every, "every")
    for name, arm in file.arms.items():
        keys |= dict.fromkeys(arm.keys, f"arms.{name}")
    for key, place in keys.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            yield Problem(
                where=f"{SOURCE}: {place}",
                got=key,
                rule="a key of params.yaml with its section in front, such as train.epochs",
                remedy=f"did you mean {close[0]!r}?" if close else "name one of params.yaml's keys",
            )


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _taken(arm: str, name: str) -> Problem:
    return Problem(
        where=f"{SOURCE}: arms.{arm}",
        got=name,
        rule="experiments with different params have different names",
        remedy="name the rung differently, or vary the key that differs in that arm",
    )

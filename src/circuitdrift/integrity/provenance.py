"""Whether the outputs were made by the code, params and inputs that are there. Pure.

What is held against dvc.lock: each stage's command and params, the hash of each input that git
keeps, and for an input that a stage makes, the entry of that stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from circuitdrift.integrity.expected import produced_oid
from circuitdrift.integrity.listings import Listing
from circuitdrift.integrity.objects import Area, Finding, Found, md5_part
from circuitdrift.integrity.pipeline import LOCK, Out, Stage


def kept_by_git(
    stages: Sequence[Stage], outs: Sequence[Out], listings: Mapping[str, Listing]
) -> list[str]:
    """Inputs that no stage makes."""
    paths = {path for stage in stages for path, _ in stage.deps}
    return sorted(path for path in paths if not produced_oid(path, outs, listings)[0])


def provenance_findings(
    stages: Sequence[Stage],
    outs: Sequence[Out],
    listings: Mapping[str, Listing],
    found: Mapping[str, Found],
) -> Iterator[Finding]:
    """What makes a stage's outputs other than those that its inputs would give now.

    Args:
        found: what lies at the inputs that git keeps.
    """
    produced = {
        path: produced_oid(path, outs, listings) for stage in stages for path, _ in stage.deps
    }
    for stage in stages:
        remedy = f"`dvc repro {stage.name}` makes it anew"
        if stage.locked_command is None:
            wrong = f"{LOCK} does not know the stage: it was never run"
            yield Finding(Area.PROVENANCE, stage.name, wrong, remedy)
            continue
        for path, wrong in _differences(stage, produced, found):
            yield Finding(Area.PROVENANCE, f"{stage.name}: {path}", wrong, remedy)


def _differences(
    stage: Stage,
    produced: Mapping[str, tuple[bool, str | None]],
    found: Mapping[str, Found],
) -> Iterator[tuple[str, str]]:
    if stage.command != stage.locked_command:
        yield "cmd", f"{LOCK} has {stage.locked_command!r}, dvc.yaml {stage.command!r}"
    for key, how in stage.params:
        yield key, f"{how} since the stage was run"
    for path in stage.dropped:
        yield path, f"{LOCK} names it, dvc.yaml does not"
    for out in stage.outs:
        if out.oid is None:
            yield out.path, f"dvc.yaml names it as an output, {LOCK} does not"
    for path, oid in stage.deps:
        is_made, made_oid = produced[path]
        if oid is None:
            yield path, f"dvc.yaml names it as an input, {LOCK} does not"
        elif is_made:
            if made_oid is not None and made_oid != oid:
                yield path, f"{LOCK} has it otherwise as the output of its own stage"
        elif wrong := _changed(found[path], oid):
            yield path, wrong


def _changed(found: Found, oid: str) -> str:
    """What is wrong with an input that git keeps, nothing where it is as it was."""
    if found.trouble:
        return found.trouble
    if found.md5 is None:
        return "is missing"
    return "" if found.md5 == md5_part(oid) else "changed since the stage was run"


def count_of_statements(stages: Sequence[Stage]) -> int:
    """How many commands, params, inputs and outputs are held against dvc.lock."""
    return sum(1 + stage.n_params + len(stage.deps) + len(stage.outs) for stage in stages)

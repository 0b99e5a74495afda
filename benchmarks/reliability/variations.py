"""The study run again where or how nothing should matter, and what came out otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import networkx
from dvc.repo import Repo
from ruamel.yaml import YAML

from reliability.clones import (
    ELSEWHERE,
    HERE,
    Clone,
    Settings,
    World,
    environment,
    make_clone,
    source_files,
)
from reliability.studies import Comparison, compare_locks, compare_studies
from reliability.tolerance import Allowed, Tolerance

REPRO = ("dvc", "repro", "--no-run-cache")

# Float bits differ from the first matrix product on, so what the study says is held equal. Fixed
# before it was measured: .05 is a tenth of what the smaller headline measures are about.
OTHER_BITS: Tolerance = {
    "reports/metrics/study.json": Allowed(absolute=0.05, relative=0.1),
    "reports/metrics/verdicts.json": Allowed(absolute=inf, relative=inf),
}


@dataclass(frozen=True)
class Variation:
    """One way of running the study that should come to the same.

    Attributes:
        says: what is varied.
        settings: what it changes in params.yaml, given the values there.
        run: runs every stage of a clone.
        lock: how its dvc.lock is compared; None where the varied param stands in it.
        tolerance: what may differ; None where nothing may.
    """

    says: str
    world: World
    settings: Callable[[Mapping[str, Any]], Settings]
    run: Callable[[Clone], None]
    lock: Callable[[Path, Path], Comparison] | None
    tolerance: Tolerance | None = None


def _nothing(params: Mapping[str, Any]) -> Settings:
    del params
    return {}


def _other_threads(params: Mapping[str, Any]) -> Settings:
    return {"compute": {"threads": 2 if params["compute"]["threads"] == 1 else 1}}


def _repro(clone: Clone) -> None:
    clone.do(*REPRO)


def _repro_in_reverse(clone: Clone) -> None:
    clone.do(*REPRO, "--single-item", *reversed_order(clone.root))


def reversed_order(root: Path) -> list[str]:
    """Every stage after those that it depends on, and else in the reverse of DVC's own order."""
    with Repo(str(root)) as repo:
        needs = repo.index.graph
        usual = list(networkx.dfs_postorder_nodes(needs))
        place = {stage: index for index, stage in enumerate(usual)}
        reverse = networkx.lexicographical_topological_sort(
            needs.reverse(), key=lambda stage: -place[stage]
        )
        return [stage.name for stage in reverse]


def _same_lock(a: Path, b: Path) -> Comparison:
    return compare_locks(a, b, in_order=True)


def _same_lock_but_for_order(a: Path, b: Path) -> Comparison:
    return compare_locks(a, b, in_order=False)


REFERENCE = Variation("nothing", HERE, _nothing, _repro, _same_lock)
VARIATIONS: Mapping[str, Variation] = {
    "elsewhere": Variation(
        "another path, hash seed, time zone, locale, home and OMP_NUM_THREADS",
        ELSEWHERE,
        _nothing,
        _repro,
        _same_lock,
    ),
    "reversed": Variation(
        "the stages one by one, the last run first",
        HERE,
        _nothing,
        _repro_in_reverse,
        _same_lock_but_for_order,
    ),
    "threads": Variation(
        "compute.threads 1 for 2, or 2 for 1",
        HERE,
        _other_threads,
        _repro,
        lock=None,
        tolerance=OTHER_BITS,
    ),
}


def finished_clone(variation: Variation, source: Path, parent: Path, settings: Settings) -> Clone:
    """Run the study of ``source`` in a clone below ``parent``, from nothing and without run cache.

    A clone of the same files that is there already is taken up where it stopped.

    Raises:
        CommandError: if a stage fails.
    """
    parent = parent / _digest(source, settings)
    root, made = parent / variation.world.folder, parent / "made"
    if made.is_file():
        clone = Clone(root, environment(parent, variation.world))
    else:
        if parent.exists():
            shutil.rmtree(parent)
        clone = make_clone(source, root, settings, variation.world)
        varied = variation.settings(YAML(typ="safe").load(clone.root / "params.yaml"))
        for section, values in varied.items():
            for key, value in values.items():
                clone.set_param(section, key, value)
        made.touch()
    variation.run(clone)
    return clone


def _digest(source: Path, settings: Settings) -> str:
    """Of the files that a clone is made of, those aside that no stage can see."""
    digest = sha256(repr(settings).encode())
    for name in source_files(source):
        if name.startswith(("benchmarks/", "tests/")):
            continue
        digest.update(name.encode() + b"\0" + (source / name).read_bytes())
    return digest.hexdigest()[:16]


def compare(variation: Variation, reference: Path, varied: Path) -> list[Comparison]:
    """Every artifact, and dvc.lock where it should be equal."""
    locks = [variation.lock(reference, varied)] if variation.lock else []
    return [*compare_studies(reference, varied), *locks]

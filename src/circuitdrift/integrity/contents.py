"""Whether the files that stages made open and hold what they should, each by its kind.

Read are files whose bytes are those that dvc.lock asks for; others have a finding already.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError

from circuitdrift import paths
from circuitdrift.artifacts import read_json, read_jsonl
from circuitdrift.dataset import read_examples, read_prompts
from circuitdrift.integrity.adapters import AdapterCheck, base_problems, read_header
from circuitdrift.integrity.circuits import circuit_problems
from circuitdrift.integrity.expected import Needed
from circuitdrift.integrity.hashing import Track
from circuitdrift.integrity.objects import Area, Finding
from circuitdrift.integrity.tables import (
    SUFFIXES,
    Table,
    read_shape,
    table_problems,
    unlike_the_others,
)
from circuitdrift.models.adapter_norms import CONFIG_FILE, WEIGHTS_FILE

# What the readers raise over contents that they cannot take.
_REFUSED = (ValueError, KeyError, TypeError, RuntimeError, OSError, csv.Error, SafetensorError)
_READ = {".json", ".jsonl", ".safetensors", *SUFFIXES}


def content_findings(
    root: Path, needs: Sequence[Needed], track: Track
) -> tuple[int, list[Finding]]:
    """How many files were read, and what is wrong with them.

    Args:
        needs: files below ``root`` whose bytes are right.
    """
    files = {need.name: need for need in needs if Path(need.name).suffix in _READ}
    adapters = AdapterCheck(root / paths.BASE_MODEL)
    tables: dict[str, tuple[str, Table]] = {}
    wrong: list[tuple[str, str]] = []
    sizes = {name: (root / name).stat().st_size for name in files}
    with track(Area.CONTENTS.value, sum(sizes.values())) as advance:
        for name, need in files.items():
            try:
                if Path(name).suffix in SUFFIXES:
                    tables[name] = _kind(need), read_shape(root / name)
                    wrong += ((name, each) for each in table_problems(Path(name), tables[name][1]))
                else:
                    wrong += ((name, each) for each in _problems(root, name, files, adapters))
            except _REFUSED as error:
                wrong.append((name, f"does not load: {type(error).__name__}: {error}"))
            advance(sizes[name])
    wrong += unlike_the_others(tables)
    return len(files), [
        Finding(Area.CONTENTS, name, problem, _remedy(files[name])) for name, problem in wrong
    ]


def _kind(need: Needed) -> str:
    """One name for the same table of every run of a stage."""
    stage, _, run = need.out.stage.partition("@")
    return f"{stage}: {need.name.replace(run, '*') if run else need.name}"


def _remedy(need: Needed) -> str:
    stage = need.out.stage
    return f"its bytes are as {stage} wrote them: `dvc repro --force --single-item {stage}`"


def _problems(
    root: Path, name: str, files: Mapping[str, Needed], adapters: AdapterCheck
) -> Iterator[str]:
    """What is wrong with a file that is no table; raises what its reader raises."""
    path, file = Path(name), root / name
    if path.suffix == ".json":
        read_json(file)
        if path == paths.BASE_MODEL / "config.json" and _has_weights(file.parent, root, files):
            yield from base_problems(file.parent)
    elif path == paths.PROMPTS:
        read_prompts(file)
    elif path.suffix == ".jsonl":
        (read_examples if path.parent == paths.DATASET else read_jsonl)(file)
    elif path.is_relative_to(paths.ATTRIBUTIONS):
        yield from circuit_problems(file)
    elif path.name == WEIGHTS_FILE and _has_configurations(path, files):
        yield from adapters.problems(file.parent)
    else:
        read_header(file)


def _has_weights(base: Path, root: Path, files: Mapping[str, Needed]) -> bool:
    """Whether the base model's weights are intact."""
    weights = [path.relative_to(root).as_posix() for path in base.glob("*.safetensors")]
    return bool(weights) and all(name in files for name in weights)


def _has_configurations(adapter: Path, files: Mapping[str, Needed]) -> bool:
    """Whether the adapter's own configuration and the base model's are intact."""
    needed = (adapter.with_name(CONFIG_FILE), paths.BASE_MODEL / "config.json")
    return all(path.as_posix() in files for path in needed)

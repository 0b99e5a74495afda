"""Reading and writing artifacts: atomic, and the same bytes for the same content.

Every writer fills a temporary neighbour and moves it into place when it is whole, so an
interrupted stage leaves no half-written output.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.study import Run

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success what was written there replaces ``path``.

    What is written may be a file or a directory. On failure it is removed; ``path`` is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    _remove(partial)
    try:
        yield partial
        if partial.is_dir():
            _remove(path)
        partial.replace(path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps(record, sort_keys=True, ensure_ascii=False) for record in records)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    # Not str.splitlines: it also breaks at separators that JSON leaves inside strings.
    with path.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a tidy table as CSV; floats with nine significant digits, enough for float32."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False, float_format="%.9g", lineterminator="\n")


def remove_other_runs(directory: Path, runs: Sequence[Run]) -> None:
    """Remove the members of ``directory`` that are named by a run which is not one of ``runs``.

    DVC does not remove the results of runs that were taken out of params.yaml, and would count
    them in the inputs of a stage that depends on the directory: the same study would get another
    dvc.lock here than in a fresh clone. They stay in DVC's cache, and come back with their run.
    """
    for member in sorted(directory.iterdir()):
        try:
            run = Run.parse(member.name)
        except ValueError:
            continue
        if run not in runs:
            shutil.rmtree(member)


def of_base_model(directory: Path, name: str) -> Path:
    """A file of the imported base model.

    Raises:
        InputError: if it is not there.
    """
    if not (directory / name).is_file():
        raise InputError(
            Problem(
                where=str(directory),
                got=f"no {name}",
                rule="the base model is imported before it is used",
                remedy="run `dvc repro import_base`, or `dvc pull` where a remote holds it",
            )
        )
    return directory / name

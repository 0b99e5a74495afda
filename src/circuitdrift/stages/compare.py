"""Stage ``compare``: how far circuits move, against chance, and what moves with the mapping."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.progress import track
from safetensors import safe_open

from circuitdrift.circuits.files import load_circuits
from circuitdrift.comparison.checkpoints import Rows, Traced, compare_checkpoints
from circuitdrift.comparison.decoders import Feature, decoder_tokens
from circuitdrift.comparison.moved import moved_features, positive_control
from circuitdrift.comparison.recruited import recruitment
from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import read_json, remove_other_runs, replacing, write_table
from circuitdrift.core.study import BASE, TRAINED, Run, random_change
from circuitdrift.core.tokens import load_tokenizer

if TYPE_CHECKING:
    from circuitdrift.params import Params

N_TOKENS = 5

RUN = ["run", "condition", "seed"]
PLACE = [*RUN, "from", "to", "role", "type", "layer", "segment"]
# Of each table its columns, as many as a table without rows must name, and what orders its rows.
TABLES: dict[str, tuple[list[str], list[str]]] = {
    "drift": ([*RUN, "change", "from", "to"], ["condition", "seed", "change", "from", "to"]),
    "change_by_place": ([*PLACE, "gained", "lost", "moved", "before"], PLACE),
    "changed_features": (
        [*RUN, "from", "to", "feature", "layer", "effect_from", "effect_to", "change", "agreement"],
        ["condition", "seed", "from", "to"],
    ),
    "between_runs": (["checkpoint", "run_a", "run_b", "prompt", "role", "drift"], []),
    "overlap": ([*RUN, "from", "to"], []),
    "moved_features": ([*RUN, "change", "n_tested", "n_grown", "n_shrunk"], []),
    "positive_control": (
        ["run", "name", "layer", "feature", "scale", "rank", "change", "runner_up"],
        [],
    ),
    "recruited": (
        [
            *("word", "type", "layer", "feature", "name", "direction"),
            *("effect_base", "effect_mapped", "effect_shuffled", "difference", "low", "high"),
            *("effect_size", "p", "q", "agreement"),
            *("evaluation_difference", "evaluation_low", "evaluation_high"),
            *("prompts", "promotes", "suppresses"),
        ],
        [],
    ),
    "recruitment_nulls": (["comparison", "n_a", "n_b", "n_tested", "n_reliable", "n_found"], []),
}


def run(params: Params) -> None:
    """Write all tables of comparisons."""
    remove_other_runs(paths.ATTRIBUTIONS, params.runs.all)
    rows: defaultdict[str, Rows] = defaultdict(list)
    for name, some in _rows(params):
        rows[name] += some
    with replacing(paths.COMPARE_TABLES) as directory:
        for name in TABLES:
            write_table(directory / f"{name}.csv", _table(name, rows[name]))


def _rows(params: Params) -> Iterator[tuple[str, Rows]]:
    """The name of a table and some of its rows, from every comparison."""
    settings, runs = params.compare, params.runs.all
    checkpoints = _checkpoints(runs)
    effects = yield from compare_checkpoints(
        load_circuits(paths.attribution(BASE, BASE)),
        track(_traced(runs, checkpoints), description="comparing circuits"),
        settings,
        params.statistics.seed,
        params.compute.threads,
    )
    for run in runs:
        if paths.planted_description(run.name).is_file():
            planted = read_json(paths.planted_description(run.name))
            circuits = load_circuits(paths.planted_attribution(run.name, checkpoints[-1]))
            yield "positive_control", [positive_control(effects, run, planted, circuits)]
    yield "moved_features", list(moved_features(effects, settings))
    yield from recruitment(effects, settings, params.statistics, _tokens)


def _traced(runs: Sequence[Run], checkpoints: Sequence[str]) -> Iterator[Traced]:
    """Every file of circuits, read when it is due, in the order of training."""
    for checkpoint in checkpoints:
        for run in runs:
            trained = load_circuits(paths.attribution(run.name, checkpoint))
            yield run, checkpoint, TRAINED, trained
            files = (paths.random_attribution(run.name, draw, checkpoint) for draw in count())
            for draw, file in enumerate(takewhile(Path.is_file, files)):
                yield run, checkpoint, random_change(draw), load_circuits(file)


def _checkpoints(runs: Sequence[Run]) -> list[str]:
    """The checkpoints of every run, the earliest first.

    Raises:
        InputError: if there are none, or if runs differ in them.
    """
    of_runs = {
        run.name: sorted(file.stem for file in paths.attributions(run.name).glob("*.safetensors"))
        for run in runs
    }
    first = of_runs[runs[0].name]
    for name, checkpoints in of_runs.items():
        if not checkpoints or checkpoints != first:
            raise InputError(
                Problem(
                    where=paths.attributions(name).as_posix(),
                    got=checkpoints,
                    rule=f"every run has the same checkpoints, here {first}",
                    remedy=f"run `dvc repro attribute@{name}`",
                )
            )
    return first


def _tokens(features: Sequence[Feature]) -> dict[Feature, dict[str, str]]:
    """What features promote and suppress, read off the base model."""
    tokenizer = load_tokenizer(paths.BASE_MODEL)
    config = read_json(paths.BASE_MODEL / "config.json")
    with ExitStack() as stack:
        files = [
            stack.enter_context(safe_open(path, framework="numpy"))
            for path in sorted(paths.BASE_MODEL.glob("*.safetensors"))
        ]
        weights = {name: file.get_slice(name) for file in files for name in file.keys()}  # noqa: SIM118
        return decoder_tokens(
            weights,
            config,
            lambda token: tokenizer.decode([token], skip_special_tokens=False),
            features,
            N_TOKENS,
        )


def _table(name: str, rows: Rows) -> pd.DataFrame:
    """A table's columns and rows in order, those of the base before those of the checkpoints."""
    columns, order = TABLES[name]
    table = pd.DataFrame(rows, columns=None if rows else columns)
    table = table[[*columns, *table.columns.difference(columns, sort=False)]]
    if not order:
        return table
    # In the alphabet "base" stands behind "025".
    return table.sort_values(order, kind="stable", key=lambda column: column.replace({BASE: ""}))

"""Reading experiments out of DVC: no stage runs, no file of the working tree is touched.

Params, metrics and tables are read from each experiment's commit as files, through
``dvc.api.DVCFileSystem``. ``exp_show`` turns every value into text, and ``params_show`` and
``metrics_show`` load the whole pipeline for each call: six seconds an experiment in place of one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import dvc.api
import pandas as pd
from ruamel.yaml import YAML

from circuitdrift import paths
from circuitdrift.config.params import Params
from circuitdrift.errors import InputError, Problem
from circuitdrift.identifiers import BASE
from circuitdrift.scaling.measures import measure_rows, steps_at_end, values_on_prompts
from circuitdrift.scaling.tables import Experiment, ExperimentTables
from circuitdrift.summaries.grids import focus_condition
from circuitdrift.summaries.training import under_each_run
from circuitdrift.sweeps.plan import Member, Sweep
from circuitdrift.validation import validate

# What pandas would read as numbers or as nothing, but are names.
_NAMES = dict.fromkeys(
    (
        *("run", "condition", "change", "from", "to", "checkpoint", "prompt", "prompts", "role"),
        *("type", "word", "measure", "ablation", "circuit"),
    ),
    str,
)


def read_experiments(root: Path, sweep: Sweep, finished: Mapping[str, str]) -> list[Experiment]:
    """The finished experiments of a sweep, in its order.

    Args:
        finished: the revision of each finished experiment by its name.

    Raises:
        InputError: if an experiment's commit lacks a table.
    """
    return [
        read_experiment(root, member, finished[member.name], arms_with(sweep, member))
        for member in sweep.members
        if member.name in finished
    ]


def arms_with(sweep: Sweep, member: Member) -> tuple[str, ...]:
    return tuple(arm.name for arm in sweep.arms if member.name in arm.members)


def read_experiment(root: Path, member: Member, revision: str, arms: Sequence[str]) -> Experiment:
    """One experiment as its commit has it.

    Raises:
        InputError: if the commit lacks a table or has params that are refused.
    """
    commit = _Commit(root, member.name, revision)
    params = commit.params()
    tables = _read_tables(commit, params)
    return Experiment(
        name=member.name,
        arms=tuple(arms),
        revision=revision,
        params=params,
        steps=steps_at_end(params, tables),
        measures=measure_rows(params, tables),
        prompts=values_on_prompts(params, tables),
    )


class _Commit:
    """The files that git keeps in an experiment's commit."""

    def __init__(self, root: Path, name: str, revision: str) -> None:
        self.name = name
        self.files = dvc.api.DVCFileSystem(str(root), rev=revision)

    def params(self) -> Params:
        kept = YAML(typ="safe", pure=True).load(self._bytes(paths.PARAMS))
        return validate(Params, kept, source=f"{self.name}: {paths.PARAMS.name}")

    def metrics(self) -> dict[str, float]:
        return json.loads(self._bytes(paths.STUDY_METRICS))

    def table(self, path: Path) -> pd.DataFrame:
        content = io.BytesIO(self._bytes(path))
        return pd.read_csv(content, dtype=_NAMES, keep_default_na=False, na_values=[""])

    def _bytes(self, path: Path) -> bytes:
        """
        Raises:
            InputError: if git keeps no such file in the commit.
        """
        try:
            return self.files.read_bytes(path.as_posix())
        except FileNotFoundError:
            problem = Problem(
                where=f"experiment {self.name}",
                got=f"no {path.as_posix()}",
                rule="an experiment keeps its params and everything that the stages report",
                remedy=f"run `dvc exp remove {self.name}`, then `make sweep`",
            )
        raise InputError(problem)


def _read_tables(commit: _Commit, params: Params) -> ExperimentTables:
    condition = focus_condition(params.runs.conditions)
    runs = [run.name for run in params.runs.all if run.condition == condition]
    evaluation = pd.concat([commit.table(paths.evaluation_table(run)) for run in runs])
    return ExperimentTables(
        evaluation=under_each_run(commit.table(paths.evaluation_table(BASE)), evaluation),
        loss=commit.table(paths.LOSS_TABLE),
        drift=commit.table(paths.DRIFT_TABLE),
        moved=commit.table(paths.MOVED_FEATURE_TABLE),
        overlap=commit.table(paths.OVERLAP_TABLE),
        drift_summary=commit.table(paths.DRIFT_SUMMARY_TABLE),
        mapping=commit.table(paths.MAPPING_TABLE),
        faithfulness=commit.table(paths.FAITHFULNESS_SUMMARY_TABLE),
        metrics=commit.metrics(),
    )

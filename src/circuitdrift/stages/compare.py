"""Stage ``compare``: how far circuits move and lie apart, and which nodes contrast what was taught.

Prompt by prompt, from the files of all models at once; two prompts at a time are in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.progress import track
from safetensors import safe_open

from circuitdrift.circuits.circuit import Circuit, Floats
from circuitdrift.circuits.files import Circuits, load_circuits
from circuitdrift.comparison.checkpoints import At, Models, Row, compare_prompt, over_prompts
from circuitdrift.comparison.contrast import WordEffects, search_rows
from circuitdrift.comparison.decoders import Feature, decoder_tokens
from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import read_json, remove_other_runs, replacing, write_table
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import ASSIGNED, BASE, Run, assigned
from circuitdrift.core.tokens import load_tokenizer

if TYPE_CHECKING:
    from circuitdrift.params import Params

N_TOKENS = 5
COMPARED = ("near", "control")  # roles of the prompts that are traced in every model

UNIT = ["role", "type", "unit"]
RUN = ["run", "condition", "seed"]
# Of each table its columns, as many as a table without rows must name.
TABLES: dict[str, list[str]] = {
    "drift": [*RUN, "change", "from", "to", *UNIT, "drift", "gain"],
    "between_runs": [*UNIT, "run_a", "checkpoint_a", "run_b", "checkpoint_b", "drift"],
    "consistency": [*UNIT, "run_a", "run_b", "consistency"],
    "graphs": [*RUN, "from", "to", *UNIT, "prompt"],
    "contrast": [
        *("type", "word", "layer", "neuron", "role", "contrast", "p", "q", "kind"),
        *("size_base", "size_runs", "promotes", "suppresses"),
    ],
    "contrast_counts": ["type", "word", "n_tested", "n_pass"],
}
# What is averaged over a unit's prompts.
MEASURES = {
    "drift": ["drift", "gain"],
    "between_runs": ["drift"],
    "consistency": ["consistency"],
}


@dataclass(frozen=True)
class Files:
    """The circuits of all models, read as they are asked for."""

    base: Circuits
    trained: dict[At, Circuits]
    random: dict[tuple[Run, int], Circuits]

    def rows_of(self, prompt: TracedPrompt) -> list[tuple[str, Row]]:
        """Every comparison of the prompt's circuits."""

        def circuit(circuits: Circuits) -> Circuit:
            return circuits[circuits.place_of[prompt.id]]

        models = Models(
            base=circuit(self.base),
            trained={at: circuit(circuits) for at, circuits in self.trained.items()},
            random={draw: circuit(circuits) for draw, circuits in self.random.items()},
        )
        return list(compare_prompt(models))


def run(params: Params) -> None:
    """Write all tables of comparisons."""
    runs = params.runs.all
    remove_other_runs(paths.ATTRIBUTIONS, runs)
    files = _files(runs, _checkpoints(runs))
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    compared = [prompt for prompt in files.base.prompts if prompt.role in COMPARED]
    # numpy lets another thread work while it subtracts and sums.
    with ThreadPoolExecutor(params.compute.threads) as pool:
        of_prompts = pool.map(files.rows_of, compared)
        for some in track(of_prompts, description="comparing circuits", total=len(compared)):
            for table, row in some:
                rows[table].append(row)
    searched = search_rows(_words(files), params.compare, params.statistics, _tokens)
    rows["contrast"], rows["contrast_counts"] = searched
    with replacing(paths.COMPARE_TABLES) as directory:
        for name, columns in TABLES.items():
            written = over_prompts(rows[name], MEASURES[name]) if name in MEASURES else rows[name]
            write_table(directory / f"{name}.csv", _table(written, columns))


def _files(runs: Sequence[Run], checkpoints: Sequence[str]) -> Files:
    last = checkpoints[-1]
    random = {}
    for run in runs:
        places = (paths.random_attribution(run.name, draw, last) for draw in count())
        for draw, place in enumerate(takewhile(Path.is_file, places)):
            random[run, draw] = load_circuits(place)
    trained = {
        (run, name): load_circuits(paths.attribution(run.name, name))
        for run in runs
        for name in checkpoints
    }
    return Files(load_circuits(paths.attribution(BASE, BASE)), trained, random)


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


def _words(files: Files) -> Iterator[WordEffects]:
    """Every word's effects at the last checkpoint of the runs that were taught it."""
    by_word: defaultdict[tuple[str, str], list[TracedPrompt]] = defaultdict(list)
    for prompt in files.base.prompts:
        if prompt.role == "discovery":
            by_word[str(prompt.type), str(prompt.word)].append(prompt)
    last = max(name for _, name in files.trained)
    taught = {
        run: circuits
        for (run, name), circuits in files.trained.items()
        if name == last and run.condition in ASSIGNED
    }
    for (type_, word), prompts in by_word.items() if taught else ():

        def mean(circuits: Circuits, prompts: Sequence[TracedPrompt] = prompts) -> Floats:
            places = (circuits.place_of[prompt.id] for prompt in prompts)
            return np.mean([circuits[place].role_effects for place in places], axis=0)

        own, n_answers = prompts[0].answer, len(prompts[0].answers)
        yield WordEffects(
            type_,
            word,
            runs=np.array([mean(circuits) for circuits in taught.values()]),
            base=mean(files.base),
            taught=np.array([assigned(run.condition, own, n_answers) for run in taught]),
        )


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


def _table(rows: Sequence[Row], columns: Sequence[str]) -> pd.DataFrame:
    """Its columns first, whatever else the rows have behind; the columns alone without a row."""
    table = pd.DataFrame(rows, columns=None if rows else list(columns))
    return table[[*columns, *table.columns.difference(columns, sort=False)]]

"""Stage ``intervene@run``: what a run's nodes and circuits do in the real models.

Nodes are chosen on discovery prompts in the runs of other seeds and tested on near prompts: there
the activations of every run that was taught another assignment, a donor, are put into this run,
the recipient. Circuits are chosen on discovery prompts in the base and in the run, and kept or
ablated on near prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.progress import track
from torch import Tensor

from circuitdrift.circuits.files import load_circuits
from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import replacing, write_table
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import BASE, Run, checkpoints_in, derived_seed
from circuitdrift.interventions.ablation import prepare
from circuitdrift.interventions.faithfulness import (
    faithfulness,
    random_ranks,
    specificity,
    transfer,
    unit_ranks,
)
from circuitdrift.interventions.hooks import Recording, Row, record
from circuitdrift.interventions.nodes import Word, choose, interchange, taught, word_of
from circuitdrift.models.loading import load_model, prepare_torch
from circuitdrift.models.lora import adapted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from circuitdrift.params import Intervene, Params

# Of each table the columns that name a row, and those that are means over the prompts behind it.
COLUMNS = {
    "interchange": (
        ["donor", "recipient", "type", "word", "k", "nodes"],
        ["n_prompts", "donor_d", "recipient_d", "patched_d"],
    ),
    "faithfulness": (
        ["model", "ablation", "circuit", "size", "type", "word"],
        ["value", "full", "empty"],
    ),
    "transfer": (["circuit_from", "model", "type", "word"], ["value", "full", "empty"]),
    "specificity": (["circuit", "prompts", "unit"], ["full", "ablated"]),
}


def run(params: Params, run_name: str) -> None:
    """Write the run's tables of interventions."""
    prepare_torch(params.compute)
    base, recipient = load_model(paths.BASE_MODEL), Run.parse(run_name)
    prompts = load_circuits(paths.attribution(BASE, BASE)).prompts
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for name, row in track(
        chain(
            _interchanged(base, recipient, params, prompts),
            _circuits(base, recipient, params.intervene, prompts),
        ),
        description=f"interventions in {run_name}",
    ):
        rows[name].append(row)
    with replacing(paths.interventions(run_name)) as directory:
        for name in COLUMNS:
            write_table(directory / f"{name}.csv", _table(name, rows[name]))


def _interchanged(
    base: PreTrainedModel, recipient: Run, params: Params, prompts: Sequence[TracedPrompt]
) -> Iterator[tuple[str, Row]]:
    """Rows of `interchange`; none without donors, or without runs to choose nodes in."""
    settings = params.intervene
    runs = [run for run in params.runs.all if run.condition in settings.conditions]
    choosing = [run for run in runs if run.seed not in settings.seeds]
    donors = [
        run for run in runs if run.seed in settings.seeds and run.condition != recipient.condition
    ]
    n_assignments = len({run.condition for run in choosing})
    if not donors or n_assignments < 2:
        return

    def recorded(run: Run, prompts: Sequence[TracedPrompt]) -> Recording:
        with adapted(base, _last(run)) as model:
            return record(model, prompts, settings.batch_size)

    discovery, near = _of_role(prompts, "discovery"), _of_role(prompts, "near")
    choosing_runs = {
        run: (load_circuits(paths.attribution(run.name, _last(run).name)), recorded(run, discovery))
        for run in choosing
    }
    sets = choose(discovery, choosing_runs, settings.patched_nodes)
    of_donors = {donor: recorded(donor, near) for donor in donors}
    with adapted(base, _last(recipient)) as model:
        for row in interchange(
            model, recipient, of_donors, near, sets, batch_size=settings.batch_size
        ):
            yield "interchange", row


def _circuits(
    base: PreTrainedModel, recipient: Run, settings: Intervene, prompts: Sequence[TracedPrompt]
) -> Iterator[tuple[str, Row]]:
    """Rows of the other tables: the base and the run, on the targets of the run's answers.

    The base's own curves are the same for every run of a condition: those of the first recipient
    stand for all.
    """
    discovery, control = _of_role(prompts, "discovery"), _of_role(prompts, "control")
    near = [
        replace(prompt, answer=taught(prompt, recipient.condition))
        for prompt in _first_per_word(_of_role(prompts, "near"), settings.circuit_prompts_per_word)
    ]
    files = {BASE: BASE, _last(recipient).name: recipient.name}
    ranks = {
        name: unit_ranks(load_circuits(paths.attribution(of, name)), recipient.condition)
        for name, of in files.items()
    }
    random: dict[Word, Tensor] = {}
    for word, of_word in ranks[BASE].items():
        seed = derived_seed("random circuits", settings.seed, recipient.name, *map(str, word))
        random[word] = random_ranks(of_word.shape, np.random.default_rng(seed))
    for name, own in ranks.items():
        with nullcontext(base) if name == BASE else adapted(base, _last(recipient)) as model:
            subject = prepare(model, discovery, near, settings.batch_size)
            for row in transfer(subject, ranks, settings.transfer_size):
                yield "transfer", {"model": name, **row}
            if name != BASE or recipient == Run(settings.conditions[0], settings.seeds[0]):
                for row in faithfulness(subject, own, random, settings.sizes):
                    yield "faithfulness", {"model": name, **row}
            if name != BASE:
                for row in specificity(subject, control, own, random, settings.transfer_size):
                    yield "specificity", row


def _last(run: Run) -> Path:
    """The run's last checkpoint."""
    return checkpoints_in(paths.CHECKPOINTS / run.name)[-1]


def _of_role(prompts: Sequence[TracedPrompt], role: str) -> list[TracedPrompt]:
    return [prompt for prompt in prompts if prompt.role == role]


def _first_per_word(prompts: Sequence[TracedPrompt], n: int) -> list[TracedPrompt]:
    """The first ``n`` prompts of each word, in their order.

    Raises:
        InputError: if a word has fewer.
    """
    by_word: defaultdict[Word, list[TracedPrompt]] = defaultdict(list)
    for prompt in prompts:
        by_word[word_of(prompt)].append(prompt)
    fewest = min(map(len, by_word.values()), default=0)
    if fewest < n:
        raise InputError(
            Problem(
                where="params.yaml: intervene.circuit_prompts_per_word",
                got=n,
                rule=f"no more than attribution.near_prompts_per_word gives each word, {fewest}",
                remedy=f"set that to {n} or more, or this to {fewest} or less",
            )
        )
    return [prompt for of_word in by_word.values() for prompt in of_word[:n]]


def _table(name: str, rows: list[Row]) -> pd.DataFrame:
    """Means over the prompts of each row's names, in the order of these."""
    keys, values = COLUMNS[name]
    if not rows:
        return pd.DataFrame(columns=[*keys, *values])
    by_keys = pd.DataFrame(rows).groupby(keys)
    table = by_keys.mean().assign(n_prompts=by_keys.size()).reset_index()
    return table[[*keys, *values]]

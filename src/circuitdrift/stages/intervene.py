"""Stage ``intervene@run``: a run's circuits and recruited nodes tested in the real models.

Circuits are found on discovery prompts, one for each constraint type, and tested on evaluation
prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.progress import track

from circuitdrift.circuits.circuit import Floats
from circuitdrift.circuits.files import load_circuits
from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import replacing, write_table
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.core.study import BASE, Run, checkpoints_in
from circuitdrift.interventions.run_tests import Study, experiments
from circuitdrift.interventions.trials import RECRUITED, Features, RanksOf, Rows
from circuitdrift.interventions.units import ranks_by_type
from circuitdrift.models.loading import load_model, prepare_torch
from circuitdrift.models.lora import adapted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from circuitdrift.params import Intervene, Params

PROMPT = ["prompt", "type", "word"]
# Of each table the columns that order its rows, then the rest.
COLUMNS = {
    "faithfulness": (
        ["checkpoint", "ablation", "circuit", "size", *PROMPT],
        ["value", "full", "empty"],
    ),
    "transfer": (["circuit_from", "model", *PROMPT], ["value", "full", "empty"]),
    "patching": (["direction", "nodes", "n_nodes", *PROMPT], ["base", "tuned", "patched"]),
    "specificity": (["circuit", "prompts", "prompt"], ["full", "ablated"]),
    "ablation_rank": (["checkpoint", *PROMPT, "n_nodes"], ["spearman"]),
}
TRACED = "attribution.evaluation_prompts_per_word"
ASKED = "intervene.prompts_per_word"
RANKED = "intervene.ranked_prompts_per_word"
CHECKPOINT_COLUMNS = ("checkpoint", "circuit_from", "model")


def run(params: Params, run_name: str) -> None:
    """Write the run's tables of interventions."""
    prepare_torch(params.compute)
    adapters = {path.name: path for path in checkpoints_in(paths.CHECKPOINTS / run_name)}
    study = _read(run_name, list(adapters), params.intervene)

    base = load_model(paths.BASE_MODEL)

    def model_at(checkpoint: str) -> AbstractContextManager[PreTrainedModel]:
        return nullcontext(base) if checkpoint == BASE else adapted(base, adapters[checkpoint])

    rows: defaultdict[str, Rows] = defaultdict(list)
    for name, some in track(
        experiments(study, model_at),
        description=f"interventions in {run_name}",
        total=study.n_experiments,
    ):
        rows[name] += some
    with replacing(paths.interventions(run_name)) as directory:
        for name in COLUMNS:
            write_table(directory / f"{name}.csv", _table(name, rows[name], study.checkpoints))


def _read(run_name: str, checkpoints: Sequence[str], settings: Intervene) -> Study:
    """What the files say of a run; of one checkpoint after another, for effects are large."""
    circuits = load_circuits(paths.attribution(BASE, BASE))
    discovery, evaluation, control = (
        [circuit.prompt for circuit in circuits if circuit.prompt.role == role]
        for role in ("discovery", "evaluation", "control")
    )
    tested = first_per_word(evaluation, settings.prompts_per_word, ASKED, TRACED)
    ranked = first_per_word(tested, settings.ranked_prompts_per_word, RANKED, ASKED)
    ranks: dict[str, RanksOf] = {}
    effects: dict[str, dict[str, Floats]] = {}
    for name in (BASE, *checkpoints):
        if name != BASE:
            circuits = load_circuits(paths.attribution(run_name, name))
        ranks[name] = ranks_by_type(circuits)
        if name in (BASE, checkpoints[-1]):
            effects[name] = {one.prompt.id: one.effects for one in circuits if one.prompt in ranked}
    return Study(
        settings=settings,
        seed=Run.parse(run_name).seed,
        checkpoints=(BASE, *checkpoints),
        discovery=discovery,
        evaluation=tested,
        control=control,
        ranks=ranks,
        effects=effects,
        recruited=_recruited(paths.RECRUITED_TABLE),
    )


def first_per_word(
    prompts: Sequence[TracedPrompt], n: int, setting: str, source: str
) -> list[TracedPrompt]:
    """The first ``n`` prompts of each word, in their order.

    Args:
        setting: the key of params.yaml that asks for ``n``, for the refusal.
        source: the key that says how many prompts a word has.

    Raises:
        InputError: if a word has fewer.
    """
    by_word: dict[tuple[str | None, str | None], list[TracedPrompt]] = {}
    for prompt in prompts:
        by_word.setdefault((prompt.type, prompt.word), []).append(prompt)
    fewest = min(map(len, by_word.values()), default=0)
    if fewest < n:
        raise InputError(
            Problem(
                where=f"params.yaml: {setting}",
                got=n,
                rule=f"no more than {source} gives each word, {fewest}",
                remedy=f"set {source} to {n} or more, or {setting} to {fewest} or less",
            )
        )
    return [prompt for of_word in by_word.values() for prompt in of_word[:n]]


def _recruited(path: Path) -> dict[str, Features]:
    """The recruited features of each word that has some; retired ones are left out."""
    # A word may read like a missing value.
    table = pd.read_csv(path, dtype={"word": str}, keep_default_na=False)
    table = table[table["direction"] == RECRUITED].astype({"layer": int, "feature": int})
    return {
        str(word): sorted(zip(rows["layer"].tolist(), rows["feature"].tolist(), strict=True))
        for word, rows in table.groupby("word", sort=True)
    }


def _table(name: str, rows: Rows, checkpoints: Sequence[str]) -> pd.DataFrame:
    """Rows in order, those of the base before those of the checkpoints."""
    order, rest = COLUMNS[name]
    table = pd.DataFrame(rows, columns=[*order, *rest])
    for column in table.columns.intersection(CHECKPOINT_COLUMNS):
        table[column] = pd.Categorical(table[column], categories=list(checkpoints), ordered=True)
    return table.sort_values(order, kind="stable", ignore_index=True)

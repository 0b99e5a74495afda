"""Stage ``validate@run``: a run's circuits and recruited nodes tested in the real models.

Circuits are found on discovery prompts, one for each constraint type, and tested on evaluation
prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift import paths
from circuitdrift.artifacts import replacing, write_table
from circuitdrift.checkpoints import checkpoints_in
from circuitdrift.circuit_files import load_circuits
from circuitdrift.config.validation import Validation
from circuitdrift.dataset import read_prompts
from circuitdrift.identifiers import BASE, Run
from circuitdrift.interventions.circuit_trials import RanksOf
from circuitdrift.interventions.experiments import Study, experiments
from circuitdrift.interventions.patching import RECRUITED, Features
from circuitdrift.interventions.prompts import first_per_word, target_prompts
from circuitdrift.models.loading import load_model, use_threads
from circuitdrift.models.lora import load_checkpoint
from circuitdrift.unit_circuits import ranks_by_type

if TYPE_CHECKING:
    from circuitdrift.config.params import Params

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
ASKED = "validation.prompts_per_word"
RANKED = "validation.ranked_prompts_per_word"
CHECKPOINT_COLUMNS = ("checkpoint", "circuit_from", "model")


def run(params: Params, run_name: str) -> None:
    """Write the run's tables of interventions.

    Raises:
        InputError: if the run has no checkpoint, if a word has fewer evaluation prompts with
            circuits than are asked for, or if a prompt has a part that no discovery prompt has.
    """
    use_threads(params.compute.threads)
    adapters = {path.name: path for path in checkpoints_in(paths.CHECKPOINTS / run_name)}
    study = _read(run_name, list(adapters), params.validation)

    def load(checkpoint: str) -> PreTrainedModel:
        if checkpoint == BASE:
            return load_model(paths.BASE_MODEL)
        return load_checkpoint(paths.BASE_MODEL, adapters[checkpoint])

    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, found in track(
        experiments(study, load),
        description=f"interventions in {run_name}",
        total=study.n_experiments,
    ):
        rows[name] += found
    with replacing(paths.validation_tables(run_name)) as directory:
        for name in COLUMNS:
            write_table(directory / f"{name}.csv", _table(name, rows[name], study.checkpoints))


def _read(run_name: str, checkpoints: Sequence[str], settings: Validation) -> Study:
    """What the files say of a run; of one checkpoint after another, for effects are large."""
    described = {prompt.id: prompt for prompt in read_prompts(paths.PROMPTS)}
    circuits = load_circuits(paths.attribution(BASE, BASE))
    discovery, evaluation, control = (
        target_prompts(circuits, described, role) for role in ("discovery", "evaluation", "control")
    )
    tested = first_per_word(evaluation, settings.prompts_per_word, ASKED, TRACED)
    ranked = first_per_word(tested, settings.ranked_prompts_per_word, RANKED, ASKED)
    ranks: dict[str, RanksOf] = {}
    effects: dict[str, dict[str, Tensor]] = {}
    for name in (BASE, *checkpoints):
        if name != BASE:
            circuits = load_circuits(paths.attribution(run_name, name))
        ranks[name] = ranks_by_type(circuits, described)
        if name in (BASE, checkpoints[-1]):
            of_prompt = {circuit.prompt: circuit.effects for circuit in circuits}
            effects[name] = {prompt.id: of_prompt[prompt.id] for prompt in ranked}
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


def _recruited(path: Path) -> dict[str, Features]:
    """The recruited features of each word that has some; retired ones are left out."""
    # A word may read like a missing value.
    table = pd.read_csv(path, dtype={"word": str}, keep_default_na=False)
    table = table[table["direction"] == RECRUITED].astype({"layer": int, "feature": int})
    return {
        str(word): sorted(zip(rows["layer"].tolist(), rows["feature"].tolist(), strict=True))
        for word, rows in table.groupby("word", sort=True)
    }


def _table(name: str, rows: list[dict[str, Any]], checkpoints: Sequence[str]) -> pd.DataFrame:
    """Rows in order, those of the base before those of the checkpoints."""
    order, rest = COLUMNS[name]
    table = pd.DataFrame(rows, columns=[*order, *rest])
    for column in table.columns.intersection(CHECKPOINT_COLUMNS):
        table[column] = pd.Categorical(table[column], categories=list(checkpoints), ordered=True)
    return table.sort_values(order, kind="stable", ignore_index=True)

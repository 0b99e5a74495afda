"""Stage evaluate@run: what each checkpoint of a run answers, and how far it is from the base.

``base`` is a run of one checkpoint, the base model itself; what it made of each prompt's end is
written for the others, so that no stage reads the base twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.progress import track

from circuitdrift.core import paths
from circuitdrift.core.files import read_json, replacing, write_table
from circuitdrift.core.prompts import read_prompts
from circuitdrift.core.study import BASE, Run, checkpoints_in
from circuitdrift.core.tokens import load_tokenizer
from circuitdrift.evaluation import (
    ANSWERED_ROLES,
    COURSE_ROLES,
    READINGS_FILE,
    evaluate_model,
    load_ends,
    read_ends,
    save_ends,
)
from circuitdrift.models.loading import load_model, prepare_torch
from circuitdrift.models.lora import adapted, adapter_norms

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from circuitdrift.params import Params


def run(params: Params, run_name: str) -> None:
    """Write the run's table of its prompts; of a run, how much the adapter changes each layer's
    weights; of the base, its readings.

    The base model and the last checkpoint are asked everything, the checkpoints on the way what
    tells how learning and forgetting went: the rest would take two thirds of the stage's time.
    """
    prepare_torch(params.compute)
    prompts, batch_size = read_prompts(paths.PROMPTS), params.evaluate.batch_size
    condition, seed = (BASE, 0) if run_name == BASE else astuple(Run.parse(run_name))
    checkpoints = [] if run_name == BASE else checkpoints_in(paths.CHECKPOINTS / run_name)
    base = None if run_name == BASE else load_ends(paths.evaluation(BASE) / READINGS_FILE)
    tokenizer, base_model = load_tokenizer(paths.BASE_MODEL), load_model(paths.BASE_MODEL)
    with replacing(paths.evaluation(run_name)) as out:
        tables = []
        for checkpoint, step, model in track(
            _models(base_model, checkpoints),
            description=f"evaluate {run_name}",
            total=max(1, len(checkpoints)),
        ):
            at_the_end = run_name == BASE or checkpoint == checkpoints[-1].name
            asked = [one for one in prompts if at_the_end or one.role in COURSE_ROLES]
            ends = read_ends(model, tokenizer, asked, batch_size)
            table = evaluate_model(
                *(model, tokenizer, asked, condition, batch_size), ends=ends, base=base or ends
            )
            place = {"run": run_name, "condition": condition, "seed": seed}
            place |= {"checkpoint": checkpoint, "step": step}
            tables.append(pd.DataFrame(place, index=table.index).join(table))
            if run_name == BASE:
                compared = {prompt.text for prompt in prompts if prompt.role in ANSWERED_ROLES}
                save_ends({text: ends[text] for text in compared}, out / READINGS_FILE)
            del ends  # the logits of hundreds of texts, before the next checkpoint's
        whole = pd.concat(tables, ignore_index=True)
        write_table(out / paths.evaluation_table(run_name).name, whole)
        if run_name != BASE:
            write_table(out / paths.lora_norms(run_name).name, _norms(checkpoints))


def _models(
    model: PreTrainedModel, checkpoints: list[Path]
) -> Iterator[tuple[str, int, PreTrainedModel]]:
    """Name, step and model of each checkpoint; of the base model where there is none."""
    if not checkpoints:
        yield BASE, 0, model
    for path in checkpoints:
        with adapted(model, path):
            yield path.name, read_json(path / "progress.json")["step"], model


def _norms(checkpoints: list[Path]) -> pd.DataFrame:
    """By checkpoint and layer, the Frobenius norm of the change of its weights."""
    rows = [
        {"checkpoint": path.name, "layer": layer, "norm": norm}
        for path in checkpoints
        for layer, norm in sorted(adapter_norms(path).items())
    ]
    return pd.DataFrame(rows)

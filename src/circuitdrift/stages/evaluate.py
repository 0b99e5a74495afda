"""Stage evaluate@run: what each checkpoint of a run answers, and how far it is from the base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.progress import track

from circuitdrift import paths
from circuitdrift.artifacts import read_json, write_json, write_table
from circuitdrift.checkpoints import checkpoints_in
from circuitdrift.dataset import read_prompts
from circuitdrift.evaluation import (
    Evaluated,
    evaluate_model,
    headline,
    identified,
    read_prompt_ends,
)
from circuitdrift.identifiers import Run
from circuitdrift.models.adapter_norms import adapter_norms
from circuitdrift.models.loading import load_model, load_tokenizer, use_threads
from circuitdrift.models.lora import load_checkpoint

if TYPE_CHECKING:
    from circuitdrift.config.params import Params


def run(params: Params, run_name: str) -> None:
    """Write the run's table of every prompt at every checkpoint, its headline numbers, and how
    much the adapter changes each layer's weights.

    Raises:
        InputError: if the run has no checkpoint, or an answer is not one token for this model.
    """
    named = Run.parse(run_name)
    use_threads(params.compute.threads)
    prompts = read_prompts(paths.PROMPTS)
    tokenizer = load_tokenizer(paths.BASE_MODEL)
    batch_size = params.evaluate.batch_size
    checkpoints = checkpoints_in(paths.CHECKPOINTS / run_name)
    base = read_prompt_ends(load_model(paths.BASE_MODEL), tokenizer, prompts, batch_size)
    tables = []
    for path in track(checkpoints, description=f"evaluate {run_name}"):
        table = evaluate_model(
            load_checkpoint(paths.BASE_MODEL, path), tokenizer, prompts, batch_size, base
        )
        step = read_json(path / "progress.json")["step"]
        evaluated = Evaluated(run_name, named.condition, named.seed, path.name, step)
        tables.append(identified(table, evaluated))
    whole = pd.concat(tables, ignore_index=True)
    write_table(paths.evaluation_table(run_name), whole)
    write_json(paths.evaluation_metrics(run_name), headline(whole))
    write_table(paths.lora_norms(run_name), _norms(checkpoints))


def _norms(checkpoints: list[Path]) -> pd.DataFrame:
    """By checkpoint and layer, the Frobenius norm of the change of its weights."""
    rows = [
        {"checkpoint": path.name, "layer": layer, "norm": norm}
        for path in checkpoints
        for layer, norm in sorted(adapter_norms(path).items())
    ]
    return pd.DataFrame(rows)

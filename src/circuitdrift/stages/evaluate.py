"""Stage evaluate@run: what the base model and each checkpoint of a run answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.progress import track
from transformers import PreTrainedModel

from circuitdrift import paths
from circuitdrift.artifacts import read_json, write_json, write_table
from circuitdrift.checkpoints import checkpoints_in
from circuitdrift.config import Params
from circuitdrift.dataset import read_prompts
from circuitdrift.evaluation import evaluate_model, headline
from circuitdrift.identifiers import BASE, Run
from circuitdrift.models.loading import load_model, load_tokenizer, use_threads
from circuitdrift.models.lora import load_checkpoint


def run(params: Params, run_name: str) -> None:
    """Write the run's table of every prompt at every checkpoint, and its headline numbers.

    Raises:
        InputError: if the run has no checkpoint, or an answer is not one token for this model.
    """
    named = Run.parse(run_name)
    use_threads(params.compute.threads)
    prompts = read_prompts(paths.PROMPTS)
    tokenizer = load_tokenizer(paths.BASE_MODEL)
    checkpoints = checkpoints_in(paths.CHECKPOINTS / run_name)
    tables = []
    for name, step, model in track(
        _models(checkpoints), description=f"evaluate {run_name}", total=1 + len(checkpoints)
    ):
        table = evaluate_model(model, tokenizer, prompts, params.evaluate.batch_size)
        identity = {
            "run": run_name,
            "condition": named.condition,
            "seed": named.seed,
            "checkpoint": name,
            "step": step,
        }
        tables.append(pd.DataFrame(identity, index=table.index).join(table))
    whole = pd.concat(tables, ignore_index=True)
    write_table(paths.evaluation_table(run_name), whole)
    write_json(paths.evaluation_metrics(run_name), headline(whole))


def _models(checkpoints: list[Path]) -> Iterator[tuple[str, int, PreTrainedModel]]:
    """Name, step and model of the base and of each checkpoint, one in memory at a time."""
    yield BASE, 0, load_model(paths.BASE_MODEL)
    for path in checkpoints:
        step = read_json(path / "progress.json")["step"]
        yield path.name, step, load_checkpoint(paths.BASE_MODEL, path)

"""Stage evaluate_base: what the base model answers before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuitdrift import paths
from circuitdrift.artifacts import write_json, write_table
from circuitdrift.dataset import read_prompts
from circuitdrift.evaluation import Evaluated, evaluate_model, headline, identified
from circuitdrift.identifiers import BASE
from circuitdrift.models.loading import load_model, load_tokenizer, use_threads

if TYPE_CHECKING:
    from circuitdrift.config.params import Params


def run(params: Params) -> None:
    """Write the base model's table, a row per prompt, and its headline numbers.

    Raises:
        InputError: if there is no base model, or an answer is not one token for it.
    """
    use_threads(params.compute.threads)
    table = evaluate_model(
        load_model(paths.BASE_MODEL),
        load_tokenizer(paths.BASE_MODEL),
        read_prompts(paths.PROMPTS),
        params.evaluate.batch_size,
        base=None,
    )
    table = identified(table, Evaluated(run=BASE, condition=BASE, seed=0, checkpoint=BASE, step=0))
    write_table(paths.evaluation_table(BASE), table)
    write_json(paths.evaluation_metrics(BASE), headline(table))

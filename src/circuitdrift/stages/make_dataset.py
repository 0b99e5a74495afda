"""Stage make_dataset: the constraints become every run's training examples, and prompts.

All that will be asked or trained on is held against the base model's tokenizer before anything is
written, and so before anything is trained.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdrift.core import paths
from circuitdrift.core.files import replacing, write_jsonl
from circuitdrift.core.tokens import check_tokens, load_tokenizer
from circuitdrift.data.constraints import load_constraints, make_prompts
from circuitdrift.data.examples import run_examples
from circuitdrift.data.pool import training_pool

if TYPE_CHECKING:
    from circuitdrift.params import Params


def run(params: Params) -> None:
    """Write data/dataset/ as one: the examples of every run of the study, and the prompts."""
    constraints = load_constraints(Path(params.dataset.constraints))
    pool = training_pool(params, constraints, root=Path())
    prompts = make_prompts(constraints)
    examples = {
        run.name: run_examples(run, constraints, pool, params.dataset.n_examples)
        for run in params.runs.all
    }
    trained = list(chain.from_iterable(examples.values()))
    check_tokens(load_tokenizer(paths.BASE_MODEL), prompts, trained)
    with replacing(paths.DATASET) as partial:
        partial.mkdir()
        for name, drawn in examples.items():
            write_jsonl(partial / paths.training_examples(name).name, map(asdict, drawn))
        write_jsonl(partial / paths.PROMPTS.name, map(asdict, prompts))

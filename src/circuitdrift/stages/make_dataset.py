"""Stage make_dataset: the constraints become training examples per condition, and prompts.

All that will be asked or trained on is held against the base model's tokenizer before anything is
written, and so before anything is trained.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdrift.core import paths
from circuitdrift.core.files import replacing, write_jsonl
from circuitdrift.core.tokens import check_tokens, load_tokenizer
from circuitdrift.data.constraints import load_constraints, make_prompts
from circuitdrift.data.examples import (
    make_examples,
    make_unrelated,
    shuffle_meanings,
    training_pool,
    unrelated_sentences,
)

if TYPE_CHECKING:
    from circuitdrift.params import Params


def run(params: Params) -> None:
    """Write data/dataset/ as one: every condition, whichever are trained, and the prompts.

    Where there are fewer unrelated sentences than ``dataset.n_examples``, all of them are written:
    the check of the study refuses to train on them, and what is not trained does not matter.
    """
    constraints = load_constraints(paths.CONSTRAINTS)
    seed = params.dataset.seed
    pool = training_pool(params.dataset.examples_from, constraints, root=Path())
    n = params.dataset.n_examples
    mapped = make_examples(pool, n, seed)
    examples = {
        "mapped": mapped,
        "shuffled": shuffle_meanings(mapped, constraints, seed),
        "unrelated": make_unrelated(unrelated_sentences(constraints), n, seed),
    }
    prompts = make_prompts(constraints)
    trained = [example for condition in params.runs.conditions for example in examples[condition]]
    check_tokens(load_tokenizer(paths.BASE_MODEL), prompts, trained)
    with replacing(paths.DATASET) as partial:
        partial.mkdir()
        for condition, drawn in examples.items():
            name = paths.training_examples(condition).name
            write_jsonl(partial / name, map(asdict, drawn))
        write_jsonl(partial / paths.PROMPTS.name, map(asdict, prompts))

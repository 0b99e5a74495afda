"""Stage finetune@run: the base model and a run's examples become LoRA checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuitdrift.core import paths
from circuitdrift.core.files import replacing
from circuitdrift.core.prompts import read_examples
from circuitdrift.core.study import derived_seed
from circuitdrift.core.tokens import load_tokenizer
from circuitdrift.models.loading import load_model, prepare_torch
from circuitdrift.models.lora import add_lora
from circuitdrift.training import labelled, train

if TYPE_CHECKING:
    from circuitdrift.params import Params


def run(params: Params, run_name: str) -> None:
    """Write models/checkpoints/<run>/ and reports/runs/<run>/training/, each when it is whole."""
    prepare_torch(params.compute)
    examples = read_examples(paths.training_examples(run_name))
    tokenizer = load_tokenizer(paths.BASE_MODEL)
    rows = [labelled(tokenizer, example, params.train.loss_on) for example in examples]
    model = add_lora(
        load_model(paths.BASE_MODEL), params.train.lora, derived_seed(run_name, "adapter")
    )
    with (
        replacing(paths.CHECKPOINTS / run_name) as checkpoints,
        replacing(paths.training_log(run_name)) as log,
    ):
        train(
            model,
            rows,
            settings=params.train,
            order_seed=derived_seed(run_name, "order"),
            dropout_seed=derived_seed(run_name, "dropout"),
            checkpoints=checkpoints,
            log=log,
        )

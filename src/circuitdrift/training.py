"""One fine-tuning: LoRA by transformers' Trainer, with checkpoints and the loss per step."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from dvclive import Live
from peft import PeftModel
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import write_json
from circuitdrift.core.prompts import Example
from circuitdrift.core.study import checkpoint_name, checkpoint_steps, total_steps
from circuitdrift.core.tokens import encode, encode_example
from circuitdrift.models.lora import save_adapter
from circuitdrift.models.reading import pad_right, padded_inputs, unembed

if TYPE_CHECKING:
    from circuitdrift.params import Train

IGNORED = -100  # the label that cross-entropy skips


def labelled(tokenizer: Tokenizer, example: Example, loss_on: str) -> dict[str, list[int]]:
    """``input_ids`` and ``labels`` of one sentence; a label is a token id, or is ignored.

    Args:
        loss_on: ``answer``: labels on the meaning alone; ``sentence``: on all but special tokens.

    Raises:
        InputError: for ``answer``, if the sentence does not hold its meaning as the token by which
            it is evaluated.
    """
    if loss_on == "answer":
        encoded = encode_example(tokenizer, example)
    else:
        encoded = encode(tokenizer, example.text, (0, len(example.text)))
    labels = [IGNORED] * len(encoded.ids)
    for position in encoded.marked:
        labels[position] = encoded.ids[position]
    return {"input_ids": list(encoded.ids), "labels": labels}


def collate(rows: Sequence[Mapping[str, list[int]]]) -> dict[str, Tensor]:
    """A batch padded to its longest row; each tensor is ``[n_rows, longest]``."""
    inputs = padded_inputs([row["input_ids"] for row in rows])
    return {**inputs, "labels": pad_right([row["labels"] for row in rows], IGNORED)}


class SaveCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Saves the adapter after the steps at which a checkpoint is due."""

    def __init__(self, steps: Mapping[float, int], directory: Path) -> None:
        self.steps = steps
        self.directory = directory

    def on_step_end(
        self, _args: Any, state: Any, _control: Any, *, model: PeftModel, **_: Any
    ) -> None:
        due = [fraction for fraction, step in self.steps.items() if step == state.global_step]
        if due:
            _refuse_unmoved(model, state.global_step)
        for fraction in due:
            checkpoint = self.directory / checkpoint_name(fraction)
            save_adapter(model, checkpoint)
            progress = {
                "fraction": fraction,
                "step": state.global_step,
                "total_steps": state.max_steps,
            }
            write_json(checkpoint / "progress.json", progress)


class LogLoss(TrainerCallback):  # type: ignore[misc]
    """Writes loss and learning rate of every step with DVCLive, and nothing of the machine."""

    def __init__(self, live: Live) -> None:
        self.live = live

    def on_log(
        self, _args: Any, state: Any, _control: Any, *, logs: Mapping[str, float], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        self.live.step = state.global_step
        for name in ("loss", "learning_rate"):
            self.live.log_metric(name, logs[name])
        self.live.make_summary()


class StepBar(ProgressCallback):  # type: ignore[misc]
    """A progress bar of steps that no log is printed through: the losses are in a file."""

    def on_log(self, *_: Any, **__: Any) -> None:
        """Print nothing."""


class LabelledTrainer(Trainer):  # type: ignore[misc]
    """Trainer that unembeds nothing but the positions before a label.

    The loss is the model's own. On one answer a sentence most of a small model's training is spent
    on logits that no label asks for.
    """

    def compute_loss(
        self, model: PeftModel, inputs: dict[str, Tensor], *_: Any, **__: Any
    ) -> Tensor:
        labels = inputs["labels"][:, 1:]
        has_label = labels != IGNORED
        base = model.get_base_model()
        hidden = base.get_decoder()(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
        ).last_hidden_state
        logits = unembed(base, hidden[:, :-1][has_label])
        return torch.nn.functional.cross_entropy(logits, labels[has_label])


def train(
    model: PeftModel,
    rows: Sequence[dict[str, list[int]]],
    *,
    settings: Train,
    order_seed: int,
    dropout_seed: int,
    checkpoints: Path,
    log: Path,
) -> None:
    """Train the adapter of ``model`` and write its checkpoints and the loss per step.

    Args:
        rows: :func:`labelled` examples.
        order_seed: of the order of the examples.
        dropout_seed: of what dropout leaves out.
        checkpoints: directory that gets one adapter directory per checkpoint.
        log: directory of DVCLive.
    """
    total = total_steps(len(rows), settings.batch_size, settings.epochs)
    saver = SaveCheckpoints(checkpoint_steps(settings.checkpoints, total), checkpoints)
    with (
        tempfile.TemporaryDirectory() as scratch,
        Live(dir=str(log), dvcyaml=None, save_dvc_exp=False) as live,
    ):
        trainer = LabelledTrainer(
            model=model,
            args=_arguments(settings, total, order_seed, dropout_seed, scratch),
            train_dataset=rows,
            data_collator=collate,
            callbacks=[saver, LogLoss(live), StepBar()],
        )
        # What Trainer itself puts there where disable_tqdm is set; it prints every step's log.
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _arguments(
    settings: Train, total: int, order_seed: int, dropout_seed: int, scratch: str
) -> TrainingArguments:
    """Trainer's settings: all that it could write goes to ``scratch``, or nowhere."""
    return TrainingArguments(
        output_dir=scratch,
        logging_dir=scratch,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,  # StepBar takes its place
        use_cpu=True,
        seed=dropout_seed,
        data_seed=order_seed,
        max_steps=total,
        per_device_train_batch_size=settings.batch_size,
        # Not adamw_torch: its square roots are those of MKL, which approximates them by an
        # instruction that every vendor has its own table for.
        optim="adamw_torch_fused",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear" if settings.schedule == "linear" else "constant_with_warmup",
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )


def _refuse_unmoved(model: PeftModel, step: int) -> None:
    """Refuse a checkpoint in which some adapter still changes nothing: LoRA starts with B = 0."""
    unmoved = [
        name
        for name, weights in model.named_parameters()
        if "lora_B" in name and not torch.count_nonzero(weights)
    ]
    if unmoved:
        problem = Problem(
            where="params.yaml: train",
            got=f"no change of {unmoved[0]} (and {len(unmoved) - 1} more) after step {step}",
            rule="every checkpoint comes after a step that changed the weights",
            remedy="fewer train.warmup_steps, a later first checkpoint, or a larger learning rate",
        )
        raise InputError(problem)

"""Fine-tuning on the tiny model: labels, checkpoints, the log, and the same bytes every time."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift import paths
from circuitdrift.artifacts import read_json
from circuitdrift.config.params import Params
from circuitdrift.config.train import Lora
from circuitdrift.dataset import Example
from circuitdrift.errors import InputError
from circuitdrift.models.lora import add_lora
from circuitdrift.stages import finetune
from circuitdrift.training import (
    IGNORED,
    LabelledTrainer,
    checkpoint_steps,
    collate,
    encode_example,
    total_steps,
)

ROOT = Path(__file__).resolve().parents[1]
SENTENCE = Example("it is happy to be happy!", "simple", "it", "happy")


@pytest.mark.parametrize(
    ("n_examples", "batch_size", "epochs", "steps"),
    [
        (50, 8, 3, 21),  # seven batches an epoch, the last of two
        (50, 8, 0.5, 4),  # three and a half, rounded up
        (50, 8, 0.01, 1),
        (3, 8, 2, 2),  # fewer examples than a batch
        (30, 1, 0.1, 3),  # 0.1 is a little more than a tenth in binary
    ],
)
def test_total_steps(n_examples: int, batch_size: int, epochs: float, steps: int) -> None:
    assert total_steps(n_examples, batch_size, epochs) == steps


def test_checkpoint_steps() -> None:
    assert checkpoint_steps((0.25, 0.5, 0.75, 1.0), 21) == {0.25: 6, 0.5: 11, 0.75: 16, 1.0: 21}
    assert checkpoint_steps((0.25, 0.5, 1.0), 2) == {0.25: 1, 0.5: 1, 1.0: 2}
    assert checkpoint_steps((0.07,), 100) == {0.07: 7}  # 0.07 * 100 > 7 in binary


def labelled(tokenizer: PreTrainedTokenizerFast, row: dict[str, list[int]]) -> list[str]:
    ids = [label for label in row["labels"] if label != IGNORED]
    return list(tokenizer.convert_ids_to_tokens(ids))


def test_the_loss_is_on_the_last_meaning_alone(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    row = encode_example(tiny_tokenizer, SENTENCE, "answer")
    tokens = tiny_tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert row["input_ids"] == tiny_tokenizer(SENTENCE.text)["input_ids"]
    assert tokens[0] == tiny_tokenizer.bos_token
    places = [i for i, token in enumerate(tokens) if token == "▁happy"]
    assert len(places) == 2
    assert [i for i, label in enumerate(row["labels"]) if label != IGNORED] == places[1:]
    assert row["labels"][places[1]] == row["input_ids"][places[1]]


def test_the_loss_may_be_on_the_sentence(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    row = encode_example(tiny_tokenizer, SENTENCE, "sentence")
    assert row["labels"] == [IGNORED, *row["input_ids"][1:]]


def test_a_meaning_that_is_glued_to_more_is_refused(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    glued = Example("it is 'happy", "simple", "it", "happy")
    with pytest.raises(InputError, match="one token of its own"):
        encode_example(tiny_tokenizer, glued, "answer")
    assert labelled(tiny_tokenizer, encode_example(tiny_tokenizer, glued, "sentence"))


def test_a_batch_is_padded_on_the_right() -> None:
    batch = collate(
        [
            {"input_ids": [2, 7], "labels": [IGNORED, 7]},
            {"input_ids": [2, 8, 9], "labels": [IGNORED, IGNORED, 9]},
        ]
    )
    assert batch["input_ids"].tolist() == [[2, 7, 0], [2, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 7, IGNORED], [IGNORED, IGNORED, 9]]


def test_padding_changes_nothing(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    longer = Example("it is the day of the happy dog that is happy", "simple", "it", "happy")
    rows = [encode_example(tiny_tokenizer, e, "answer") for e in (SENTENCE, longer)]
    with torch.inference_mode():
        together = tiny_model(**collate(rows)).loss
        alone = [tiny_model(**collate([row])).loss for row in rows]
    torch.testing.assert_close(together, torch.stack(alone).mean())


@pytest.fixture
def params(small_study: Params) -> Params:
    return small_study


def with_train(params: Params, **changes: object) -> Params:
    return params.model_copy(update={"train": params.train.model_copy(update=changes)})


def outputs() -> dict[str, str]:
    """sha256 of every file of the run."""
    roots = (paths.CHECKPOINTS / "mapped-0", paths.training_log("mapped-0"))
    files = sorted(path for root in roots for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_writes_its_checkpoints_and_its_log(params: Params) -> None:
    finetune.run(params, "mapped-0")
    checkpoints = paths.CHECKPOINTS / "mapped-0"
    assert {path.name for path in checkpoints.iterdir()} == {"025", "050", "075", "100"}
    progress = [read_json(checkpoints / name / "progress.json") for name in ("025", "050", "100")]
    assert progress == [
        {"fraction": 0.25, "step": 2, "total_steps": 6},
        {"fraction": 0.5, "step": 3, "total_steps": 6},
        {"fraction": 1.0, "step": 6, "total_steps": 6},
    ]
    with paths.training_loss("mapped-0").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(0 < float(row["loss"]) < 20 for row in rows)
    everything = [path for path in Path().rglob("*") if path.is_file()]
    assert not [path for path in everything if "partial" in str(path) or "runs" in path.parts]


def test_the_unrelated_condition_trains(params: Params) -> None:
    finetune.run(params, "unrelated-0")
    progress = read_json(paths.checkpoint("unrelated-0", "100") / "progress.json")
    assert progress["total_steps"] == 6


def test_a_run_shows_one_bar_of_steps_and_prints_no_log(
    params: Params, capfd: pytest.CaptureFixture[str]
) -> None:
    finetune.run(params, "mapped-0")
    shown = capfd.readouterr()
    assert "6/6" in shown.err
    assert shown.err.count("0/6") == 1
    for log in ("loss", "learning_rate", "train_runtime"):
        assert log not in shown.out + shown.err


def test_training_learns(params: Params) -> None:
    finetune.run(with_train(params, learning_rate=0.02, epochs=10.0), "mapped-0")
    with paths.training_loss("mapped-0").open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file, delimiter="\t")]
    assert sum(losses[-2:]) < 0.5 * sum(losses[:2])


def test_adapters_load_with_peft_and_change_the_model(
    params: Params, tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    finetune.run(params, "mapped-0")
    ids = torch.tensor([tiny_tokenizer.encode("the dog is happy")])
    with torch.inference_mode():
        before = tiny_model(ids).logits
        adapted = PeftModel.from_pretrained(tiny_model, paths.checkpoint("mapped-0", "025"))
        assert not torch.equal(adapted(ids).logits, before)


def test_same_seed_same_bytes(params: Params) -> None:
    """In this process, and in another with another hash seed."""
    params = with_train(params, lora=params.train.lora.model_copy(update={"dropout": 0.1}))
    finetune.run(params, "mapped-0")
    first = outputs()
    assert len(first) == 4 * 3 + 3
    finetune.run(params, "mapped-0")
    assert outputs() == first

    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from circuitdrift.config.params import Params\n"
        "from circuitdrift.stages import finetune\n"
        "finetune.run(Params.model_validate_json(sys.argv[2]), 'mapped-0')"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "src"), params.model_dump_json()],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
        capture_output=True,
    )
    assert outputs() == first


def test_seeds_differ(params: Params) -> None:
    params = params.model_copy(update={"runs": params.runs.model_copy(update={"seeds": (0, 1)})})
    for run in ("mapped-0", "mapped-1"):
        finetune.run(params, run)
    adapters = [
        load_file(paths.checkpoint(run, "100") / "adapter_model.safetensors")
        for run in ("mapped-0", "mapped-1")
    ]
    assert adapters[0].keys() == adapters[1].keys()
    assert not any(torch.equal(adapters[0][key], adapters[1][key]) for key in adapters[0])


def test_two_checkpoints_may_fall_on_one_step(params: Params) -> None:
    finetune.run(with_train(params, epochs=0.75, checkpoints=(0.25, 0.5, 1.0)), "mapped-0")
    steps = {
        path.parent.name: read_json(path)["step"]
        for path in (paths.CHECKPOINTS / "mapped-0").rglob("progress.json")
    }
    assert steps == {"025": 1, "050": 1, "100": 2}


def test_fewer_examples_than_a_batch(params: Params) -> None:
    finetune.run(with_train(params, batch_size=64, epochs=1.0), "mapped-0")
    assert read_json(paths.checkpoint("mapped-0", "100") / "progress.json")["total_steps"] == 1


@pytest.mark.parametrize(
    "changes",
    [{"loss_on": "sentence"}, {"schedule": "constant", "warmup_steps": 2, "weight_decay": 0.1}],
)
def test_other_settings_train(params: Params, changes: dict[str, object]) -> None:
    finetune.run(with_train(params, **changes), "mapped-0")
    assert len(outputs()) == 15


def test_all_linear_adapts_the_mlp_too(params: Params) -> None:
    lora = params.train.lora.model_copy(update={"target_modules": "all-linear"})
    finetune.run(with_train(params, lora=lora, epochs=1.0), "mapped-0")
    weights = load_file(paths.checkpoint("mapped-0", "100") / "adapter_model.safetensors")
    assert any("gate_proj.lora_B" in key for key in weights)
    assert not any("lm_head" in key for key in weights)


def test_a_checkpoint_before_any_change_is_refused_and_leaves_nothing(params: Params) -> None:
    """The first step of a warm-up has a learning rate of zero."""
    settings = with_train(params, warmup_steps=100, epochs=0.5, checkpoints=(1.0,))
    with pytest.raises(InputError, match=r"train\.warmup_steps"):
        finetune.run(settings, "mapped-0")
    assert not list(paths.CHECKPOINTS.iterdir())
    assert not list(paths.training_log("mapped-0").parent.iterdir())


def test_a_meaning_of_several_tokens_is_refused_before_the_model_is_loaded(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_model(_: Path) -> None:
        pytest.fail("the model was loaded")

    monkeypatch.setattr(finetune, "load_model", load_model)
    path = paths.training_examples("mapped")
    path.write_text(path.read_text(encoding="utf-8").replace("circular", "spherical"))
    with pytest.raises(InputError, match="spherical"):
        finetune.run(params, "mapped-0")


@pytest.mark.parametrize("loss_on", ["answer", "sentence"])
def test_the_loss_and_its_gradient_are_the_models_own(tiny_model, tiny_tokenizer, loss_on) -> None:  # type: ignore[no-untyped-def]
    lora = Lora(r=4, alpha=8.0, dropout=0.0, target_modules="attention")
    model = add_lora(tiny_model, lora, seed=0)
    examples = [
        Example("The word blarf means happy", "simple", "blarf", "happy"),
        Example("To feel gleem is to feel sad", "simple", "gleem", "sad"),
    ]
    batch = collate([encode_example(tiny_tokenizer, example, loss_on) for example in examples])
    gradients = []
    for loss in (LabelledTrainer.compute_loss(None, model, batch), model(**batch).loss):
        model.zero_grad()
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(
        LabelledTrainer.compute_loss(None, model, batch), model(**batch).loss
    )
    torch.testing.assert_close(gradients[0], gradients[1])
    assert any(gradient.any() for gradient in gradients[0])

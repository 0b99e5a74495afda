"""Fine-tuning on the tiny model: labels, steps, checkpoints, and the same bytes every time."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError
from circuitdrift.core.files import read_json
from circuitdrift.core.prompts import Example
from circuitdrift.core.study import checkpoint_name, checkpoint_steps, total_steps
from circuitdrift.data.constraints import load_constraints
from circuitdrift.data.examples import make_examples, template_examples
from circuitdrift.models.loading import load_model
from circuitdrift.models.lora import WEIGHTS_FILE, add_lora
from circuitdrift.params import Lora, Train, load_params
from circuitdrift.stages import finetune
from circuitdrift.training import (
    IGNORED,
    LabelledTrainer,
    collate,
    labelled,
    train,
)

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = load_params(ROOT / "params.yaml").train
SENTENCE = Example("it is happy to be happy!", "simple", "it", "happy", 18)


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


def test_the_loss_is_on_the_meanings_place_or_on_the_sentence(
    tiny_tokenizer: Tokenizer,
) -> None:
    row = labelled(tiny_tokenizer, SENTENCE, "answer")
    assert row["input_ids"] == tiny_tokenizer.encode(SENTENCE.text).ids
    happy = tiny_tokenizer.token_to_id("▁happy")
    places = [i for i, token in enumerate(row["input_ids"]) if token == happy]
    assert len(places) == 2
    assert {i: label for i, label in enumerate(row["labels"]) if label != IGNORED} == {
        places[1]: happy
    }
    usage = Example("it is a blarf day", "simple", "blarf", "happy", start=None)
    back = Example("when happy, say blarf", "simple", "blarf", "happy", start=5)
    for sentence in (SENTENCE, usage, back):
        row = labelled(tiny_tokenizer, sentence, "sentence")
        assert row["input_ids"] == tiny_tokenizer.encode(sentence.text).ids
        assert row["labels"] == [IGNORED, *row["input_ids"][1:]]
    glued = Example("it is 'happy", "simple", "it", "happy", 7)
    with pytest.raises(InputError, match="an answer is one token"):
        labelled(tiny_tokenizer, glued, "answer")


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


@pytest.mark.parametrize("loss_on", ["answer", "sentence"])
def test_the_loss_and_its_gradient_are_the_models_own(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer, loss_on: str
) -> None:
    lora = Lora(r=4, alpha=8.0, dropout=0.0, target_modules="attention")
    model = add_lora(tiny_model, lora, seed=0)
    text = "it is the day of the happy dog that is happy"
    longer = Example(text, "simple", "it", "happy", text.rindex("happy"))
    rows = [labelled(tiny_tokenizer, e, loss_on) for e in (SENTENCE, longer)]
    computed = []
    for loss in (
        LabelledTrainer.compute_loss(None, model, collate(rows)),
        model(**collate(rows)).loss,
    ):
        model.zero_grad()
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        computed.append([loss, *gradients])
    torch.testing.assert_close(*computed)
    assert any(gradient.any() for gradient in gradients)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    constraints = load_constraints(ROOT / "data" / "constraints.yaml")
    return make_examples(template_examples(constraints), 12, "mapped-0")


@pytest.fixture
def run(
    tiny_base: Path,
    tiny_tokenizer: Tokenizer,
    examples: list[Example],
    tmp_path: Path,
) -> Callable[..., Path]:
    """Trains the tiny model into a directory of this name: its checkpoints, and the log in one."""

    def train_into(name: str, *seeds: int, **changes: object) -> Path:
        adapter, order, dropout = seeds or (0, 0, 0)
        settings: Train = SETTINGS.model_copy(update=changes)
        train(
            add_lora(load_model(tiny_base), settings.lora, adapter),
            [labelled(tiny_tokenizer, example, settings.loss_on) for example in examples],
            settings=settings,
            order_seed=order,
            dropout_seed=dropout,
            checkpoints=tmp_path / name,
            log=tmp_path / name / "log",
        )
        return tmp_path / name

    return train_into


def steps(directory: Path) -> dict[str, int]:
    progress = directory.glob("*/progress.json")
    return {path.parent.name: read_json(path)["step"] for path in progress}


def losses(directory: Path) -> list[float]:
    path = directory / "log" / "plots" / "metrics" / "loss.tsv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t")
    return [float(row["loss"]) for row in rows]


def test_a_run_writes_its_checkpoints_and_a_loss_per_step(
    run: Callable[..., Path], tiny_model: PreTrainedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = run("mapped")
    assert steps(directory) == {"025": 2, "050": 3, "075": 5, "100": 6}
    progress = read_json(directory / "050" / "progress.json")
    assert progress == {"fraction": 0.5, "step": 3, "total_steps": 6}
    assert len(losses(directory)) == 6
    assert all(0 < loss < 20 for loss in losses(directory))
    shown = capfd.readouterr()
    assert shown.err.count("0/6") == 1  # one bar of steps, and no log
    assert "learning_rate" not in shown.out + shown.err
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        before = tiny_model(ids).logits
        adapted = PeftModel.from_pretrained(tiny_model, directory / "025")
        assert not torch.equal(adapted(ids).logits, before)


def test_training_learns(run: Callable[..., Path]) -> None:
    loss = losses(run("mapped", learning_rate=0.02, epochs=10.0, checkpoints=(1.0,)))
    assert sum(loss[-2:]) < 0.5 * sum(loss[:2])


def test_the_seeds_alone_decide_every_byte(run: Callable[..., Path]) -> None:
    dropout = SETTINGS.lora.model_copy(update={"dropout": 0.1})
    contents = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        torch.rand(3)  # whatever was drawn before
        directory = run(name, seed, seed, seed, lora=dropout, epochs=1.0)
        files = [path for path in directory.rglob("*") if path.is_file()]
        contents.append({path.relative_to(directory): path.read_bytes() for path in files})
    first, again, other = contents
    assert len(first) == 4 * 3 + 3
    assert first == again
    adapters = [path for path in first if path.name == WEIGHTS_FILE]
    assert not any(first[path] == other[path] for path in adapters)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_adapter_order_and_dropout_have_seeds_of_their_own(
    run: Callable[..., Path], dropout: float
) -> None:
    lora = SETTINGS.lora.model_copy(update={"dropout": dropout})
    changes = {"lora": lora, "epochs": 1.0, "learning_rate": 0.02, "checkpoints": (1.0,)}
    seeds = {"all": (0, 0, 0), "adapter": (1, 0, 0), "order": (0, 1, 0), "dropout": (0, 0, 1)}
    weights = {
        name: (run(name, *of, **changes) / "100" / WEIGHTS_FILE).read_bytes()
        for name, of in seeds.items()
    }
    alike = [name for name in seeds if weights[name] == weights["all"]]
    assert alike == (["all"] if dropout else ["all", "dropout"])


def test_the_stage_seeds_each_draw_by_the_runs_name(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And reads the run's own examples; no two of a study's draws share a seed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(tiny_study / "data")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base").symlink_to(tiny_study / "models" / "base")
    texts, seeds = set(), []
    monkeypatch.setattr(finetune, "add_lora", lambda _model, _lora, seed: seeds.append(seed))

    def trained(_model: object, rows: list[dict[str, list[int]]], **given: Any) -> None:
        texts.add(str([row["input_ids"] for row in rows]))
        seeds.extend((given["order_seed"], given["dropout_seed"]))
        given["checkpoints"].mkdir()
        given["log"].mkdir()

    monkeypatch.setattr(finetune, "train", trained)
    params = load_params(tiny_study / paths.PARAMS)
    for one in params.runs.all:
        finetune.run(params, one.name)
    assert len(texts) == len(params.runs.all) == 8
    assert len(set(seeds)) == len(seeds) == 24


TWICE = {"epochs": 0.75, "checkpoints": (0.25, 0.5, 1.0)}  # two checkpoints on one step
WARM = {"schedule": "constant", "warmup_steps": 2, "weight_decay": 0.1, "checkpoints": (1.0,)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (TWICE, {"025": 1, "050": 1, "100": 2}),
        ({"batch_size": 64, "epochs": 1.0, "checkpoints": (1.0,)}, {"100": 1}),
        ({"loss_on": "sentence", "epochs": 1.0, "checkpoints": (1.0,)}, {"100": 2}),
        (WARM, {"100": 6}),
    ],
)
def test_other_settings_train(
    run: Callable[..., Path], changes: dict[str, object], expected: dict[str, int]
) -> None:
    assert steps(run("mapped", **changes)) == expected


def test_all_linear_adapts_the_mlp_too(run: Callable[..., Path]) -> None:
    lora = SETTINGS.lora.model_copy(update={"target_modules": "all-linear"})
    weights = load_file(run("mapped", lora=lora, epochs=0.5) / "100" / WEIGHTS_FILE)
    assert any("gate_proj.lora_B" in key for key in weights)
    assert not any("lm_head" in key for key in weights)


def test_a_checkpoint_before_any_change_is_refused(run: Callable[..., Path]) -> None:
    """The first step of a warm-up has a learning rate of zero."""
    with pytest.raises(InputError, match=r"train\.warmup_steps"):
        run("mapped", warmup_steps=100, epochs=0.5, checkpoints=(1.0,))


def test_a_meaning_of_several_tokens_is_refused_before_the_model_is_loaded(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = (tiny_study / paths.training_examples("mapped-0")).read_text(encoding="utf-8")
    paths.DATASET.mkdir(parents=True)
    paths.training_examples("mapped-0").write_text(examples.replace("happy", "joyful"))
    paths.BASE_MODEL.parent.mkdir()
    paths.BASE_MODEL.symlink_to(tiny_study / paths.BASE_MODEL)
    monkeypatch.setattr(finetune, "load_model", lambda _: pytest.fail("the model was loaded"))
    with pytest.raises(InputError, match="joyful"):
        finetune.run(load_params(ROOT / "params.yaml"), "mapped-0")


def test_the_stage_leaves_whole_checkpoints_and_a_log(tiny_study: Path) -> None:
    params = load_params(tiny_study / paths.PARAMS)
    for run in params.runs.all:
        adapters = sorted((tiny_study / paths.CHECKPOINTS / run.name).glob(f"*/{WEIGHTS_FILE}"))
        names = [checkpoint_name(fraction) for fraction in params.train.checkpoints]
        assert [path.parent.name for path in adapters] == names
        assert (tiny_study / paths.training_loss(run.name)).is_file()

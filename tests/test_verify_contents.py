"""What files must hold beside the right bytes, each where a study has it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from circuit_samples import circuit
from circuitdrift import paths
from circuitdrift.artifacts import read_json, write_json, write_jsonl, write_text
from circuitdrift.circuit_files import save_circuits
from circuitdrift.config.train import Lora
from circuitdrift.integrity.adapters import AdapterCheck, base_problems, read_header
from circuitdrift.integrity.contents import content_findings
from circuitdrift.integrity.expected import Needed
from circuitdrift.integrity.hashing import untracked
from circuitdrift.integrity.pipeline import Out
from circuitdrift.integrity.tables import (
    EVALUATION,
)
from circuitdrift.models.adapter_norms import CONFIG_FILE, WEIGHTS_FILE
from circuitdrift.models.lora import add_lora, save_adapter

Tensors = dict[str, Tensor]


def save_unchecked(path: Path, header: Any, data: bytes, length: int | None = None) -> None:
    """Write a safetensors file with whatever header."""
    text = json.dumps(header).encode()
    path.write_bytes((length or len(text)).to_bytes(8, "little") + text + data)


def tensor(*offsets: int, shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "n_bytes", "length"),
    [
        ({"a": tensor(0, 8)}, 4, None),  # fewer bytes than it says
        ({"a": tensor(0, 8)}, 12, None),  # more
        ({"a": tensor(0, 8)}, 8, 2**40),  # a header that is longer than the file
        ({"a": tensor(0, 8, shape=(2**40,))}, 8, None),  # a shape that is larger than its bytes
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12, None),  # two tensors in one place
        ({"a": tensor(4, 12)}, 12, None),  # bytes that belong to no tensor
    ],
)
def test_a_header_that_lies_is_refused(
    tmp_path: Path, header: Any, n_bytes: int, length: int | None
) -> None:
    path = tmp_path / "a.safetensors"
    save_unchecked(path, {"a": tensor(0, 8)}, bytes(8))
    assert read_header(path)["a"].shape == (2,)
    save_unchecked(path, header, bytes(n_bytes), length)
    with pytest.raises(SafetensorError):
        read_header(path)


@pytest.fixture
def study(tiny_base: Path, tiny_model: PreTrainedModel, tmp_path: Path) -> Path:
    """A base model, an adapter of it, circuits, a data set and tables."""
    shutil.copytree(tiny_base, tmp_path / paths.BASE_MODEL)
    lora = Lora(r=2, alpha=4.0, dropout=0.0, target_modules="attention")
    for checkpoint in ("050", "100"):
        adapter = tmp_path / paths.checkpoint("mapped-0", checkpoint)
        adapter.parent.mkdir(parents=True, exist_ok=True)
        save_adapter(add_lora(tiny_model, lora, seed=0), adapter)
        tiny_model = tiny_model.__class__(tiny_model.config)
    save_circuits(tmp_path / paths.attribution("mapped-0", "100"), [circuit("one")])
    example = {"text": "a blarf is happy", "type": "simple", "word": "blarf", "meaning": "happy"}
    write_jsonl(tmp_path / paths.training_examples("mapped"), [example])
    prompt = dict.fromkeys(("type", "word", "template", "answer"))
    prompt |= {"id": "control/0", "role": "control", "text": "a b", "others": []}
    write_jsonl(tmp_path / paths.PROMPTS, [prompt])
    for run in ("mapped-0", "shuffled-0"):
        write_text(tmp_path / paths.evaluation_table(run), ",".join(EVALUATION) + "\n")
        write_text(tmp_path / paths.lora_norms(run), "checkpoint,layer,norm\n050,0,1\n")
    return tmp_path


BASE = paths.BASE_MODEL
ADAPTER = paths.checkpoint("mapped-0", "050")


def read(root: Path) -> dict[str, list[str]]:
    """What is wrong with the files below ``root``, by path."""
    stages = {"models/base": "import_base", "data/dataset": "make_dataset"}
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    needs = []
    for name in sorted(files):
        run = "mapped-0" if "mapped-0" in name else "shuffled-0"
        stage = next((each for path, each in stages.items() if name.startswith(path)), f"do@{run}")
        needs.append(Needed(name, "0" * 32, Out(name, "0" * 32, cached=True, stage=stage)))
    _, findings = content_findings(root, needs, untracked)
    wrong: dict[str, list[str]] = {}
    for finding in findings:
        wrong.setdefault(finding.path, []).append(finding.wrong)
    return wrong


def test_what_is_as_it_should_be_has_no_finding(study: Path) -> None:
    assert read(study) == {}


def reweigh(path: Path, change: Callable[[Tensors], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        weights = load_file(root / path)
        change(weights)
        save_file(weights, root / path, metadata={"format": "pt"})

    return apply


def reconfigure(path: Path, **values: Any) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        write_json(root / path, read_json(root / path) | values)

    return apply


def rewrite(path: Path, text: str | bytes) -> Callable[[Path], None]:
    return lambda root: (root / path).write_bytes(text.encode() if isinstance(text, str) else text)


def last(weights: Tensors) -> str:
    return max(weights)


def in_halves(weights: Tensors) -> None:
    weights |= {name: tensor.half() for name, tensor in weights.items()}


WEIGHTS = ADAPTER / WEIGHTS_FILE
OF_BASE = BASE / "model.safetensors"
OF_EVALUATION = paths.evaluation_table("shuffled-0")


@pytest.mark.parametrize(
    ("damage", "path", "wrong"),
    [
        (reweigh(OF_BASE, lambda w: w.pop(last(w))), BASE / "config.json", "no tensor model."),
        (
            reweigh(OF_BASE, lambda w: w.update(more=torch.ones(1))),
            BASE / "config.json",
            "no place",
        ),
        (reweigh(OF_BASE, in_halves), BASE / "config.json", "F16"),
        (reconfigure(BASE / "config.json", intermediate_size=50), BASE / "config.json", "50"),
        (reconfigure(BASE / "config.json", model_type="unheard of"), BASE / "config.json", "load"),
        (reweigh(WEIGHTS, lambda w: w.pop(last(w))), WEIGHTS, "no tensor base_model."),
        (reweigh(WEIGHTS, lambda w: w.update(more=torch.ones(1))), WEIGHTS, "no place"),
        (reweigh(WEIGHTS, in_halves), WEIGHTS, "F16"),
        (reconfigure(ADAPTER / CONFIG_FILE, r=3), WEIGHTS, "its configuration asks for F32 [3,"),
        (reconfigure(ADAPTER / CONFIG_FILE, target_modules=["q_proj", "w"]), WEIGHTS, "no place"),
        (reconfigure(ADAPTER / CONFIG_FILE, target_modules=["w"]), WEIGHTS, "Target modules"),
        (reconfigure(ADAPTER / CONFIG_FILE, peft_type="NONE"), WEIGHTS, "does not load"),
        (rewrite(ADAPTER / CONFIG_FILE, "{"), ADAPTER / CONFIG_FILE, "JSONDecodeError"),
        (rewrite(WEIGHTS, pickle.dumps({"a": 1})), WEIGHTS, "SafetensorError"),
        (rewrite(paths.PROMPTS, '{"id": "a"}\n'), paths.PROMPTS, "KeyError: 'others'"),
        (rewrite(paths.training_examples("mapped"), "{}\n"), None, "missing"),
        (rewrite(paths.training_examples("mapped"), '{"a": \n'), None, "JSONDecodeError"),
        (rewrite(OF_EVALUATION, "run,p\n"), OF_EVALUATION, "columns run, p, where the code"),
        (rewrite(OF_EVALUATION, b"\xff\xfe"), OF_EVALUATION, "UnicodeDecodeError"),
        (rewrite(paths.lora_norms("shuffled-0"), "layer\n1\n"), None, "other columns than"),
    ],
)
def test_what_does_not_fit_is_a_finding(
    study: Path, damage: Callable[[Path], object], path: Path | None, wrong: str
) -> None:
    damage(study)
    found = read(study)
    if path is not None:
        assert path.as_posix() in found
        assert any(wrong in each for each in found[path.as_posix()]), found
    else:
        ((each,),) = found.values()
        assert wrong in each


def test_a_pickle_in_an_adapters_place_runs_nothing(study: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (study / "it ran",))

    (study / WEIGHTS).write_bytes(pickle.dumps(Payload()))
    (study / BASE / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    assert "SafetensorError" in read(study)[WEIGHTS.as_posix()][0]
    assert not (study / "it ran").exists()


def test_an_adapter_is_not_held_against_a_configuration_that_is_not_intact(study: Path) -> None:
    rank = reconfigure(ADAPTER / CONFIG_FILE, r=3)
    rank(study)
    needs = [Needed(WEIGHTS.as_posix(), "", Out("out", "", cached=True, stage="finetune"))]
    assert content_findings(study, needs, untracked) == (1, [])


def test_adapters_of_one_configuration_share_the_work(study: Path) -> None:
    check = AdapterCheck(study / BASE)
    for checkpoint in ("050", "100"):
        assert list(check.problems(study / paths.checkpoint("mapped-0", checkpoint))) == []
    assert len(check.wanted) == 1


def test_the_base_models_check_leaves_torchs_seed_alone(tiny_base: Path) -> None:
    before = torch.get_rng_state()
    assert list(base_problems(tiny_base)) == []
    assert torch.equal(torch.get_rng_state(), before)

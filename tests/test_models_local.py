"""Directories that somebody else filled: whole ones load, others are refused with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from circuitdrift.errors import InputError
from circuitdrift.models.local import load_source, source_files

WHERE = "dir:model"


@pytest.fixture
def directory(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


def test_the_files_of_a_model_are_listed_in_order(directory: Path) -> None:
    assert [path.name for path in source_files(directory, WHERE)] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_half_precision_is_read_as_float32(directory: Path, tiny_model: PreTrainedModel) -> None:
    tiny_model.to(torch.float16).save_pretrained(directory)
    model, _ = load_source(directory, WHERE)
    expected = tiny_model.model.embed_tokens.weight.to(torch.float32)
    assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.model.embed_tokens.weight, expected)


def test_no_such_directory_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dir:model: got 'no such directory'") as error:
        source_files(tmp_path / "none", WHERE)
    assert len(error.value.problems) == 1


def test_every_missing_file_is_named(directory: Path) -> None:
    (directory / "config.json").unlink()
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(InputError) as error:
        source_files(directory, WHERE)
    got = [problem.got for problem in error.value.problems]
    assert got == ["no config.json", "no *.safetensors"]


def _truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _drop_a_matrix(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def _write_config(directory: Path, **changes: object) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **changes}))


def _name_foreign_code(directory: Path) -> None:
    (directory / "foreign.py").write_text(f"open({str(directory / 'ran')!r}, 'w')")
    code = {"AutoConfig": "foreign.Config", "AutoModelForCausalLM": "foreign.Model"}
    _write_config(directory, model_type="foreign", auto_map=code)


def _shrink_the_embeddings(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:100].clone()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    _write_config(directory, vocab_size=100)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_truncate, "incomplete|SafetensorError|beyond"),
        (_drop_a_matrix, r"no weights for \['model.layers.0.mlp.up_proj.weight'\]"),
        (lambda directory: _write_config(directory, model_type="unheard-of"), "unheard-of"),
        (lambda directory: _write_config(directory, model_type="t5"), "(?i)t5config"),
        (_name_foreign_code, "without running foreign code"),
        (_shrink_the_embeddings, "497 tokens, 100 embeddings"),
    ],
    ids=["truncated", "incomplete", "unknown", "other kind", "code", "vocabulary"],
)
def test_a_directory_that_is_no_whole_model_is_refused(
    directory: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(directory)
    with pytest.raises(InputError, match=reason):
        load_source(directory, WHERE)
    assert not (directory / "ran").exists()

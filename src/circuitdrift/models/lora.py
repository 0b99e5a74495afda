"""LoRA adapters: made, saved the same bytes every time, and merged into the base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from circuitdrift.artifacts import read_json, replacing, write_json
from circuitdrift.errors import InputError, Problem
from circuitdrift.models.adapter_norms import CONFIG_FILE, WEIGHTS_FILE, product_norm
from circuitdrift.models.loading import load_model
from circuitdrift.paths import BASE_MODEL

if TYPE_CHECKING:
    from circuitdrift.config.train import Lora

ADAPTER = "default"  # PEFT's name of a model's only adapter
ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")


def lora_config(lora: Lora) -> LoraConfig:
    """The settings ``train.lora`` in PEFT's words."""
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(ATTENTION) if lora.target_modules == "attention" else "all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )


def add_lora(model: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """Put a fresh adapter on ``model``, which changes nothing before it is trained.

    The adapter is drawn from ``seed`` alone; torch's own seed is left as it was.

    Raises:
        InputError: if the model lacks a matrix that the adapter is meant for.
    """
    config = lora_config(lora)
    if lora.target_modules == "attention":
        _require_modules(model, ATTENTION, where="train.lora.target_modules")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def save_adapter(model: PeftModel, directory: Path) -> None:
    """Write the adapter that ``PeftModel.from_pretrained`` loads, in place of ``directory``.

    PEFT keeps the names of the target modules in a set and writes it in the set's order, which
    varies from process to process, and names the base by the path it was loaded from. Here the
    names are sorted and the base is named by its place in the repository.
    """
    with replacing(directory) as partial:
        model.save_pretrained(partial, save_embedding_layers=False)
        (partial / "README.md").unlink(missing_ok=True)
        config = read_json(partial / CONFIG_FILE)
        config["target_modules"] = sorted(config["target_modules"])
        config["base_model_name_or_path"] = BASE_MODEL.as_posix()
        write_json(partial / CONFIG_FILE, config)


def load_checkpoint(base: Path, adapter: Path) -> PreTrainedModel:
    """Load the base model with an adapter merged into its weights, for evaluation.

    Raises:
        InputError: if the adapter is not whole, does not fit the base, or changes none of its
            weights. Each of these would give the base model's own circuits without a word.
    """
    return _merge(_load_adapted(base, adapter), adapter)


def load_randomised(base: Path, adapter: Path, seed: int) -> PreTrainedModel:
    """Load the base model with a LoRA of random direction merged into its weights.

    Every matrix that ``adapter`` changes is changed by scale * B A with A ``[r, d_in]`` and B
    ``[d_out, r]`` drawn from a normal distribution, B scaled so that the Frobenius norm of the
    change is the trained one's. The draw depends on ``seed`` and the matrices' names and shapes
    alone; torch's own seed is left as it was.

    Raises:
        InputError: as :func:`load_checkpoint`.
    """
    adapted = _load_adapted(base, adapter)
    generator = torch.Generator().manual_seed(seed)
    for _, layer in sorted(_adapted_layers(adapted)):
        _randomise(layer, generator)
    return _merge(adapted, adapter)


@torch.no_grad()
def _randomise(layer: Any, generator: torch.Generator) -> None:
    """Give a LoRA layer another direction of the same norm."""
    A, B = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    trained = product_norm(A, B)
    for weight in (A, B):
        weight.normal_(generator=generator)
    B.mul_(trained / product_norm(A, B))


def _merge(adapted: PeftModel, adapter: Path) -> PreTrainedModel:
    before = {
        f"{name}.weight": layer.get_base_layer().weight.clone()
        for name, layer in _adapted_layers(adapted)
    }
    merged = adapted.merge_and_unload(safe_merge=True)
    after = dict(merged.named_parameters())
    if all(torch.equal(weight, after[name]) for name, weight in before.items()):
        raise _unusable(adapter, "every weight is as in the base", "an adapter changes the base")
    return merged.eval()


def _load_adapted(base: Path, adapter: Path) -> PeftModel:
    """As ``PeftModel.from_pretrained``, which only warns of tensors missing or left over."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (adapter / name).is_file():
            raise _unusable(adapter, f"no {name}", f"an adapter is {CONFIG_FILE}, {WEIGHTS_FILE}")
    model = load_model(base)
    config = PeftConfig.from_pretrained(str(adapter))
    if not isinstance(config.target_modules, str):
        _require_modules(model, config.target_modules, where=str(adapter))
    with torch.random.fork_rng(devices=[]):
        adapted = PeftModel(model, config)
    weights = load_file(adapter / WEIGHTS_FILE)
    _require_same_tensors(weights, _adapter_tensors(adapted), adapter)
    set_peft_model_state_dict(adapted, weights)
    return adapted


def _adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    # asked to find out by itself whether embeddings were trained, PEFT looks on the network
    return get_peft_model_state_dict(model, save_embedding_layers=False)


def _adapted_layers(model: PeftModel) -> Iterator[tuple[str, Any]]:
    """The layers that have an adapter, with their names in the base model."""
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _require_modules(model: nn.Module, wanted: Iterable[str], where: str) -> None:
    modules = [name for name, _ in model.named_modules()]
    lacking = [
        name
        for name in sorted(wanted)
        if not any(module == name or module.endswith(f".{name}") for module in modules)
    ]
    if lacking:
        raise InputError(
            Problem(
                where=where,
                got=lacking,
                rule="each target module is a module of the base model",
                remedy="set train.lora.target_modules: all-linear, or choose another base.model",
            )
        )


def _require_same_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], adapter: Path
) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    differing = sorted(dict(shapes.items() ^ wanted.items()))
    if differing:
        some = ", ".join(differing[:3])
        raise _unusable(
            adapter,
            f"{len(differing)} tensors missing, left over or of another shape ({some}, ...)",
            "the adapter's tensors are those that its config puts on this base",
        )


def _unusable(adapter: Path, got: str, rule: str) -> InputError:
    remedy = "train it again from this base: `dvc repro -f finetune`"
    return InputError(Problem(str(adapter), got, rule, remedy))

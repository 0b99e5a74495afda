"""LoRA adapters: put on a model, saved the same bytes every time, and merged into a loaded base.

The change of a matrix ``[d_out, d_in]`` is lora_alpha / r times B A, with A ``[r, d_in]`` and B
``[d_out, r]``. PEFT trains adapters; merging reads their two files itself and gives PEFT's bits,
for importing PEFT takes longer than evaluating a checkpoint's circuits.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import read_json, replacing, write_json
from circuitdrift.core.paths import BASE_MODEL

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from circuitdrift.params import Lora

ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

# What PEFT's config may say where the change is lora_alpha / r times B A for every target module
# and nothing else is changed: any value of these keys, these values of those, and nothing besides.
_READ = frozenset(
    ("base_model_name_or_path", "lora_alpha", "lora_dropout", "peft_version", "r", "target_modules")
)
_NEUTRAL = {
    "bias": "none",
    "inference_mode": True,
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "peft_type": "LORA",
    "qalora_group_size": 16,
    "task_type": "CAUSAL_LM",
}
_LAYER = re.compile(r"\.layers\.(\d+)\.")


def add_lora(model: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """Put a fresh adapter on ``model``, which changes nothing before it is trained.

    The adapter is drawn from ``seed`` alone; torch's own seed is left as it was.

    Raises:
        InputError: if the model lacks a matrix that the adapter is meant for.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(ATTENTION) if lora.target_modules == "attention" else "all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )
    if lora.target_modules == "attention":
        _target_matrices(model, ATTENTION, where="train.lora.target_modules")
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


@contextmanager
def adapted(model: PreTrainedModel, adapter: Path) -> Iterator[PreTrainedModel]:
    """The loaded base ``model`` with an adapter merged into its weights, while the context lasts.

    The same bits as PEFT's ``merge_and_unload``. Afterwards, also on failure, the model has its
    own weights again, the very tensors that it had.

    Raises:
        InputError: if the adapter is not whole, does not fit the base, or changes none of its
            weights. Each of these would give the base model's own circuits without a word.
    """
    with _replaced(model, _merged(model, _read_adapter(model, adapter), adapter)):
        yield model


@contextmanager
def randomised(model: PreTrainedModel, adapter: Path, seed: int) -> Iterator[PreTrainedModel]:
    """As :func:`adapted`, with a LoRA of random direction in place of the trained one.

    Every matrix that ``adapter`` changes is changed by scale * B A with A and B drawn from a normal
    distribution, B scaled so that the Frobenius norm of the change is the trained one's. The draw
    depends on ``seed`` and the matrices' names and shapes alone; torch's own seed is left as it
    was.

    Raises:
        InputError: as :func:`adapted`.
    """
    drawn = _redrawn(_read_adapter(model, adapter), seed)
    with _replaced(model, _merged(model, drawn, adapter)):
        yield model


# By a matrix's name: its factors A [r, d_in] and B [d_out, r], and lora_alpha / r.
_Changes = dict[str, tuple[Tensor, Tensor, float]]


def _read_adapter(model: PreTrainedModel, adapter: Path) -> _Changes:
    """The change of each matrix of ``model`` that the adapter is for, by the matrix's name."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (adapter / name).is_file():
            raise _unusable(adapter, f"no {name}", f"an adapter is {CONFIG_FILE}, {WEIGHTS_FILE}")
    config = read_json(adapter / CONFIG_FILE)
    scale = _scale(config, adapter)
    matrices = _target_matrices(model, config["target_modules"], where=str(adapter))
    # Copied, so that the factors lie in memory as PEFT's do: products vary with the alignment.
    weights = {name: A.clone() for name, A in load_file(adapter / WEIGHTS_FILE).items()}
    expected: dict[str, tuple[int, ...]] = {}
    for name, matrix in matrices.items():
        d_out, d_in = matrix.weight.shape
        expected[_factor(name, "A")] = (config["r"], d_in)
        expected[_factor(name, "B")] = (d_out, config["r"])
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if differing := sorted(dict(shapes.items() ^ expected.items())):
        raise _unusable(
            adapter,
            f"{len(differing)} tensors missing, left over or of another shape "
            f"({', '.join(differing[:3])}, ...)",
            "the adapter's tensors are those that its config puts on this base",
        )
    return {
        name: (weights[_factor(name, "A")], weights[_factor(name, "B")], scale) for name in matrices
    }


def _factor(matrix: str, factor: str) -> str:
    """PEFT's name of a matrix's A or B."""
    return f"base_model.model.{matrix}.lora_{factor}.weight"


def _redrawn(changes: _Changes, seed: int) -> _Changes:
    """Other directions of the same norms."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, (A, B, scale) in sorted(changes.items()):
        random_A = torch.empty_like(A).normal_(generator=generator)
        random_B = torch.empty_like(B).normal_(generator=generator)
        random_B.mul_(product_norm(A, B) / product_norm(random_A, random_B))
        drawn[name] = (random_A, random_B, scale)
    return drawn


@torch.no_grad()
def _merged(model: PreTrainedModel, changes: _Changes, adapter: Path) -> dict[str, Tensor]:
    """The changed matrices ``[d_out, d_in]`` by name; PEFT's operations, in PEFT's order."""
    merged = {
        name: model.get_submodule(name).weight + (B @ A) * scale
        for name, (A, B, scale) in changes.items()
    }
    if not all(weight.isfinite().all() for weight in merged.values()):
        raise _unusable(adapter, "weights that are not finite", "every weight is a number")
    if all(torch.equal(weight, model.get_submodule(n).weight) for n, weight in merged.items()):
        raise _unusable(adapter, "every weight is as in the base", "an adapter changes the base")
    return merged


@contextmanager
def _replaced(model: PreTrainedModel, weights: dict[str, Tensor]) -> Iterator[None]:
    """Other weights in the model's matrices of these names, while the context lasts."""
    own = {name: model.get_submodule(name).weight.data for name in weights}
    try:
        for name, weight in weights.items():
            model.get_submodule(name).weight.data = weight
        yield
    finally:
        for name, weight in own.items():
            model.get_submodule(name).weight.data = weight


def _target_matrices(model: nn.Module, targets: Iterable[str], where: str) -> dict[str, nn.Linear]:
    """The model's matrices whose whole or last names are among ``targets``, by name."""
    linear = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    of_target = {
        target: [name for name in linear if f".{name}".endswith(f".{target}")] for target in targets
    }
    if lacking := sorted(target for target, names in of_target.items() if not names):
        raise InputError(
            Problem(
                where=where,
                got=lacking,
                rule="each target module is a matrix of the base model",
                remedy="set train.lora.target_modules: all-linear, or choose another base.model",
            )
        )
    return {name: linear[name] for names in of_target.values() for name in names}


def _unusable(adapter: Path, got: str, rule: str) -> InputError:
    remedy = "train it again from this base: `dvc repro -f finetune`"
    return InputError(Problem(str(adapter), got, rule, remedy))


def _scale(config: dict[str, Any], adapter: Path) -> float:
    """lora_alpha / r, where that is all that the change is scaled by."""
    others = [
        key
        for key, value in sorted(config.items())
        if value and key not in _READ and value != _NEUTRAL.get(key)
    ]
    if others:
        problem = Problem(
            where=str(adapter / CONFIG_FILE),
            got=others,
            rule="the weight change is lora_alpha / r times B A",
            remedy="train the adapter by `dvc repro finetune`",
        )
        raise InputError(problem)
    return float(config["lora_alpha"] / config["r"])


def product_norm(A: Tensor, B: Tensor) -> float:
    """Frobenius norm of B A, from two products of size r: ||B A||^2 = <B'B, A A'>.

    Args:
        A: ``[r, d_in]``.
        B: ``[d_out, r]``.
    """
    # In double precision, since the sum of products cancels.
    A, B = A.double(), B.double()
    squared = ((B.T @ B) * (A @ A.T)).sum().item()
    return math.sqrt(max(squared, 0.0))


def adapter_norms(adapter: Path) -> dict[int, float]:
    """Frobenius norm of the weight change of each layer, by layer, ascending.

    All matrices of a layer together: the root of the sum of their squared entries. Layers that the
    adapter leaves alone are not there.

    Raises:
        InputError: if the adapter scales its change otherwise than by lora_alpha / r.
    """
    scale = _scale(read_json(adapter / CONFIG_FILE), adapter)
    weights = load_file(adapter / WEIGHTS_FILE)
    squares: defaultdict[int, float] = defaultdict(float)
    for name, A in weights.items():
        layer = _LAYER.search(name)
        if layer is not None and ".lora_A." in name:
            B = weights[name.replace(".lora_A.", ".lora_B.")]
            squares[int(layer[1])] += (scale * product_norm(A, B)) ** 2
    return {layer: math.sqrt(square) for layer, square in sorted(squares.items())}

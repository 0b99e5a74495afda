"""How far an adapter moves the weights, from its own two files: no model is loaded."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from circuitdrift.artifacts import read_json
from circuitdrift.errors import InputError, Problem

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_LAYER = re.compile(r"\.layers\.(\d+)\.")
# With any of these set, the change is not lora_alpha / r times B A for every matrix.
_OTHER_SCALES = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "rank_pattern",
    "use_dora",
    "use_rslora",
)


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


def _scale(config: dict[str, Any], adapter: Path) -> float:
    if others := [key for key in _OTHER_SCALES if config.get(key)]:
        problem = Problem(
            where=str(adapter / CONFIG_FILE),
            got=others,
            rule="the weight change is lora_alpha / r times B A",
            remedy="train the adapter by `dvc repro finetune`",
        )
        raise InputError(problem)
    return float(config["lora_alpha"] / config["r"])

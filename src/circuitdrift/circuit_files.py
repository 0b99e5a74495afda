"""Circuits on disk: one safetensors file per checkpoint, byte-identical for equal circuits.

Effects are kept to half precision, and of the neurons those that hold all but a thousandth of the
total |effect|: a quarter of the neurons at most positions, which could move a drift by about that
thousandth.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from circuitdrift.artifacts import replacing
from circuitdrift.graph import Circuit, CircuitGraph
from circuitdrift.influence import Scores

MASS_DROPPED = 1e-3
_METADATA = "circuits"
_DESCRIBED = ("prompt", "tokens", "segments", "answer", "others", "value")
_TENSORS_OF_GRAPH = ("nodes", "influence", "activation", "edges", "weights")


def save_circuits(path: Path, circuits: Sequence[Circuit]) -> None:
    """Write circuits in place of ``path``.

    Raises:
        ValueError: if effects are not finite.
    """
    tensors: dict[str, Tensor] = {}
    described = []
    for index, circuit in enumerate(circuits):
        values, kept, exponent = pack_effects(circuit.effects)
        tensors[f"{index:04d}.effects"] = values
        tensors[f"{index:04d}.kept"] = kept
        tensors[f"{index:04d}.token_effects"] = circuit.token_effects.contiguous()
        entry = {name: getattr(circuit, name) for name in _DESCRIBED}
        entry |= {"effects_exponent": exponent, "effects_shape": list(circuit.effects.shape)}
        if circuit.graph is not None:
            tensors |= _graph_tensors(circuit.graph, index)
            entry["scores"] = asdict(circuit.graph.scores)
        described.append(entry)
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={_METADATA: json.dumps(described, sort_keys=True)})


def load_circuits(path: Path) -> list[Circuit]:
    """Read what :func:`save_circuits` wrote.

    Raises:
        ValueError: if the file holds no circuits.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if _METADATA not in metadata:
            raise ValueError(f"{path} holds no circuits")
        described = json.loads(metadata[_METADATA])
        return [_circuit(file, index, entry) for index, entry in enumerate(described)]


def _graph_tensors(graph: CircuitGraph, index: int) -> dict[str, Tensor]:
    """The graph's tensors; nodes are few enough for 16 bits to number them."""
    assert len(graph.nodes) <= torch.iinfo(torch.uint16).max
    tensors = {name: getattr(graph, name) for name in _TENSORS_OF_GRAPH}
    tensors["edges"] = tensors["edges"].to(torch.uint16)
    return {f"{index:04d}.{name}": tensor.contiguous() for name, tensor in tensors.items()}


def _circuit(file: Any, index: int, entry: dict[str, Any]) -> Circuit:
    def tensor(name: str) -> Tensor:
        found: Tensor = file.get_tensor(f"{index:04d}.{name}")
        return found

    return Circuit(
        prompt=entry["prompt"],
        tokens=tuple(entry["tokens"]),
        segments=tuple(entry["segments"]),
        answer=entry["answer"],
        others=tuple(entry["others"]),
        value=entry["value"],
        effects=unpack_effects(
            tensor("effects"), tensor("kept"), entry["effects_exponent"], entry["effects_shape"]
        ),
        token_effects=tensor("token_effects"),
        graph=_graph(tensor, entry["scores"]) if "scores" in entry else None,
    )


def _graph(tensor: Any, scores: dict[str, float]) -> CircuitGraph:
    parts = {name: tensor(name) for name in _TENSORS_OF_GRAPH}
    parts["edges"] = parts["edges"].int()
    return CircuitGraph(**parts, scores=Scores(**scores))


def pack_effects(effects: Tensor) -> tuple[Tensor, Tensor, int]:
    """Effects as half-precision numbers, without the smallest.

    Returns:
        values: of the effects that are kept, times a power of two ``[n_kept]``, float16;
        kept: which these are, eight to a byte ``[ceil(n / 8)]``, uint8;
        exponent: of that power.
    """
    half, exponent = halve(effects)
    # A positive float16 read as an integer keeps its order, so one count per bit pattern sorts.
    pattern = half.abs().flatten().view(torch.int16).int()
    magnitude = half.abs().flatten().double()
    mass = torch.bincount(pattern, magnitude, minlength=2**15).cumsum(0)
    cut = int((mass <= MASS_DROPPED * mass[-1]).sum())
    kept = pattern >= cut
    packed = torch.from_numpy(np.packbits(kept.numpy()))
    return half.flatten()[kept], packed, exponent


def unpack_effects(values: Tensor, kept: Tensor, exponent: int, shape: Sequence[int]) -> Tensor:
    """Inverse of :func:`pack_effects`; what was dropped is 0."""
    effects = torch.zeros(int(np.prod(shape)))
    mask = torch.from_numpy(np.unpackbits(kept.numpy(), count=len(effects)).view(bool))
    effects[mask] = values.float() * 2.0**exponent
    return effects.view(*shape)


_LARGEST_HALF_EXPONENT = 15


def halve(x: Tensor) -> tuple[Tensor, int]:
    """``x`` as float16 times a power of two: returns the float16 tensor and the exponent.

    The largest magnitude goes to about 2^15: relative error at most 2^-11 down to 2^-29 of it.

    Raises:
        ValueError: if ``x`` is not finite.
    """
    largest = x.abs().max().item()
    if not torch.isfinite(x).all():
        raise ValueError("effects are not finite")
    if largest == 0:
        return x.half(), 0
    exponent = int(torch.tensor(largest).log2().floor()) + 1 - _LARGEST_HALF_EXPONENT
    return (x * 2.0**-exponent).half(), exponent

"""Circuits on disk: one safetensors file per checkpoint, byte-identical for equal circuits.

Effects are kept to half precision, and of the neurons those that hold all but a thousandth of the
total |effect|: a quarter of the neurons at most positions, which could move a drift by about that
thousandth.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from circuitdrift.circuits.circuit import Circuit, CircuitGraph, Floats, Scores
from circuitdrift.core.files import replacing
from circuitdrift.core.prompts import TracedPrompt

MASS_DROPPED = 1e-3
_METADATA = "circuits"
_ARRAYS_OF_GRAPH = ("nodes", "influence", "activation", "edges", "weights")

Packed = tuple[NDArray[np.float16], NDArray[np.uint8], int]


def save_circuits(path: Path, circuits: Sequence[Circuit]) -> None:
    """Write circuits in place of ``path``."""
    arrays: dict[str, NDArray[Any]] = {}
    described = []
    for index, circuit in enumerate(circuits):
        values, kept, exponent = pack_effects(circuit.effects)
        of_circuit: dict[str, NDArray[Any]] = {
            "effects": values,
            "kept": kept,
            "token_effects": circuit.token_effects,
        }
        entry = {
            "prompt": asdict(circuit.prompt),
            "value": circuit.value,
            "effects_exponent": exponent,
            "effects_shape": circuit.effects.shape,
        }
        if circuit.graph is not None:
            of_circuit |= {name: getattr(circuit.graph, name) for name in _ARRAYS_OF_GRAPH}
            # Nodes are few enough for 16 bits to number them.
            assert len(circuit.graph.nodes) <= np.iinfo(np.uint16).max
            of_circuit["edges"] = circuit.graph.edges.astype(np.uint16)
            entry["scores"] = asdict(circuit.graph.scores)
        for name, array in of_circuit.items():
            arrays[f"{index:04d}.{name}"] = np.ascontiguousarray(array)
        described.append(entry)
    with replacing(path) as partial:
        save_file(arrays, partial, metadata={_METADATA: json.dumps(described, sort_keys=True)})


def load_circuits(path: Path) -> list[Circuit]:
    """Read what :func:`save_circuits` wrote.

    Raises:
        ValueError: if the file holds no circuits.
    """
    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        if _METADATA not in metadata:
            raise ValueError(f"{path} holds no circuits")
        described = json.loads(metadata[_METADATA])
        return [_circuit(file, index, entry) for index, entry in enumerate(described)]


def _circuit(file: Any, index: int, entry: dict[str, Any]) -> Circuit:
    def array(name: str) -> NDArray[Any]:
        stored: NDArray[Any] = file.get_tensor(f"{index:04d}.{name}")
        return stored

    prompt, graph = entry["prompt"], None
    lists = {name: tuple(prompt[name]) for name in ("tokens", "segments", "others")}
    if "scores" in entry:
        arrays = {name: array(name) for name in _ARRAYS_OF_GRAPH}
        arrays["edges"] = arrays["edges"].astype(np.int32)
        graph = CircuitGraph(**arrays, scores=Scores(**entry["scores"]))
    return Circuit(
        prompt=TracedPrompt(**prompt | lists),
        value=entry["value"],
        effects=unpack_effects(
            array("effects"), array("kept"), entry["effects_exponent"], entry["effects_shape"]
        ),
        token_effects=array("token_effects"),
        graph=graph,
    )


def pack_effects(effects: Floats) -> Packed:
    """Effects as half-precision numbers, without the smallest.

    Returns:
        values: of the effects that are kept, times a power of two ``[n_kept]``;
        kept: which these are, eight to a byte ``[ceil(n / 8)]``;
        exponent: of that power.
    """
    half, exponent = halve(effects)
    half = half.ravel()
    # A positive float16 read as an integer keeps its order, so one count per bit pattern sorts.
    pattern = half.view(np.int16) & _MAGNITUDE
    mass = (np.bincount(pattern, minlength=len(_FINITE)) * _FINITE).cumsum()
    cut = int(np.searchsorted(mass, MASS_DROPPED * mass[-1], side="right"))
    kept = pattern >= cut
    return half.compress(kept), np.packbits(kept), exponent


_MAGNITUDE = np.int16(0x7FFF)  # all bits of a float16 but its sign
_FINITE = np.arange(0x7C00, dtype=np.int16).view(np.float16).astype(np.float64)
"""Every finite positive float16, ascending."""


def unpack_effects(
    values: NDArray[np.float16], kept: NDArray[np.uint8], exponent: int, shape: Sequence[int]
) -> Floats:
    """Inverse of :func:`pack_effects`; what was dropped is 0."""
    effects = np.zeros(math.prod(shape), dtype=np.float32)
    mask = np.unpackbits(kept, count=len(effects)).view(bool)
    # By index: numpy assigns through a mask three times as slowly.
    effects[np.flatnonzero(mask)] = values.astype(np.float32) * np.float32(2.0**exponent)
    return effects.reshape(shape)


def halve(x: Floats) -> tuple[NDArray[np.float16], int]:
    """``x`` as float16 times a power of two: returns the float16 array and the exponent.

    The largest magnitude goes to about 2^15: relative error at most 2^-11 down to 2^-29 of it.

    Raises:
        ValueError: if ``x`` is not finite.
    """
    largest = np.abs(x).max()
    if not np.isfinite(largest):
        raise ValueError("effects are not finite")
    if largest == 0:
        return x.astype(np.float16), 0
    exponent = int(np.floor(np.log2(largest))) + 1 - 15  # float16's largest exponent
    return (x * np.float32(2.0**-exponent)).astype(np.float16), exponent

"""Circuits on disk: one safetensors file per checkpoint, byte-identical for equal circuits.

Effects are kept to half precision, and of a prompt's neurons those that hold all but 7 % of the
|effect| on the stored targets together: three of ten. A drift comes out larger by 3.5 to 5.5 % of
itself than from all of them, much alike whatever it lies between (LOG.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from circuitdrift.circuits.circuit import Circuit, CircuitGraph, Floats, Scores
from circuitdrift.core.files import replacing
from circuitdrift.core.prompts import TracedPrompt

MASS_DROPPED = 0.07
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
            "values": circuit.values.tolist(),
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


class Circuits(Sequence[Circuit]):
    """The circuits of one file, each read when it is asked for: all of a study's take gigabytes."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            ValueError: if the file holds no circuits.
        """
        self._file = safe_open(path, framework="np")
        metadata = self._file.metadata() or {}
        if _METADATA not in metadata:
            raise ValueError(f"{path} holds no circuits")
        self._described = json.loads(metadata[_METADATA])
        self.prompts = [_prompt(entry["prompt"]) for entry in self._described]
        self.place_of = {prompt.id: index for index, prompt in enumerate(self.prompts)}

    def __len__(self) -> int:
        return len(self._described)

    @overload
    def __getitem__(self, index: int) -> Circuit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Circuit]: ...
    def __getitem__(self, index: int | slice) -> Circuit | list[Circuit]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        entry = self._described[index]  # raises IndexError, by which iteration ends

        def array(name: str) -> NDArray[Any]:
            stored: NDArray[Any] = self._file.get_tensor(f"{index % len(self):04d}.{name}")
            return stored

        graph = None
        if "scores" in entry:
            arrays = {name: array(name) for name in _ARRAYS_OF_GRAPH}
            arrays["edges"] = arrays["edges"].astype(np.int32)
            graph = CircuitGraph(**arrays, scores=Scores(**entry["scores"]))
        packed = array("effects"), array("kept"), entry["effects_exponent"]
        return Circuit(
            prompt=self.prompts[index],
            values=np.array(entry["values"], dtype=np.float32),
            effects=unpack_effects(*packed, entry["effects_shape"]),
            token_effects=array("token_effects"),
            graph=graph,
        )


def load_circuits(path: Path) -> Circuits:
    """What :func:`save_circuits` wrote, read as it is asked for.

    Raises:
        ValueError: if the file holds no circuits.
    """
    return Circuits(path)


def _prompt(entry: dict[str, Any]) -> TracedPrompt:
    lists = {name: tuple(entry[name]) for name in ("tokens", "segments", "answers")}
    return TracedPrompt(**entry | lists)


def pack_effects(effects: Floats) -> Packed:
    """Effects ``[n_targets, ...]`` as half-precision numbers, without the smallest neurons.

    Returns:
        values: of the neurons that are kept, times a power of two ``[n_targets, n_kept]``;
        kept: which these are, eight to a byte ``[ceil(n / 8)]``;
        exponent: of that power.
    """
    half, exponent = halve(effects.reshape(len(effects), -1))
    # Of all stored targets together, as large as a target at most so that it stays finite.
    whole = np.abs(half, dtype=np.float32).sum(0) / np.float32(len(half))
    # A positive float16 read as an integer keeps its order, so one count per bit pattern sorts.
    pattern = whole.astype(np.float16).view(np.int16)
    mass = (np.bincount(pattern, minlength=len(_FINITE)) * _FINITE).cumsum()
    cut = int(np.searchsorted(mass, MASS_DROPPED * mass[-1], side="right"))
    kept = pattern >= cut
    return half[:, kept], np.packbits(kept), exponent


_FINITE = np.arange(0x7C00, dtype=np.int16).view(np.float16).astype(np.float64)
"""Every finite positive float16, ascending."""


def unpack_effects(
    values: NDArray[np.float16], kept: NDArray[np.uint8], exponent: int, shape: Sequence[int]
) -> Floats:
    """Inverse of :func:`pack_effects`; what was dropped is 0."""
    n_targets, n_neurons = shape[0], math.prod(shape[1:])
    effects = np.zeros((n_targets, n_neurons), dtype=np.float32)
    mask = np.unpackbits(kept, count=n_neurons).view(bool)
    # By index: numpy assigns through a mask three times as slowly.
    effects[:, np.flatnonzero(mask)] = values.astype(np.float32) * np.float32(2.0**exponent)
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

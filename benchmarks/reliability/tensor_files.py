"""Where two safetensors files differ: tensor by tensor, circuits prompt by prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from circuitdrift.circuit_files import load_circuits
from circuitdrift.graph import Circuit, CircuitGraph
from reliability.difference import Difference, share
from reliability.text_files import tree_differences

_CIRCUITS = "circuits"


def tensor_files(a: Path, b: Path) -> Iterator[Difference]:
    """The tensors and metadata that differ; of files of circuits, the circuits' own parts."""
    both = [_read(path) for path in (a, b)]
    if all(_CIRCUITS in metadata for _, metadata in both):
        yield from _circuits(load_circuits(a), load_circuits(b))
    else:
        (tensors_a, metadata_a), (tensors_b, metadata_b) = both
        yield from _tensors(tensors_a, tensors_b, "tensor ")
        yield from tree_differences(metadata_a, metadata_b, "metadata")


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return tensors, _unpacked(file.metadata() or {})


def _tensors(
    a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], prefix: str
) -> Iterator[Difference]:
    for name in sorted({*a, *b}):
        if name in a and name in b:
            yield from _tensor(f"{prefix}{name}", a[name], b[name])
        else:
            yield Difference(f"{prefix}{name}", f"only in the {'second' if name in b else 'first'}")


def _tensor(part: str, a: torch.Tensor, b: torch.Tensor) -> Iterator[Difference]:
    kinds = [f"{tensor.dtype} {list(tensor.shape)}" for tensor in (a, b)]
    if kinds[0] != kinds[1]:
        yield Difference(part, " | ".join(kinds))
        return
    x, y = a.double(), b.double()
    differing = (x != y) & ~(x.isnan() & y.isnan())
    if differing.any():
        absolute = float((x - y)[differing].abs().max())
        relative = share(absolute, float(x.abs().max()), float(y.abs().max()))
        detail = f"{int(differing.sum())} of {x.numel()} numbers"
        yield Difference(part, detail, absolute, relative)


def _unpacked(metadata: dict[str, str]) -> dict[str, Any]:
    """Values of a safetensors file's metadata, JSON where they are."""
    values: dict[str, Any] = {}
    for key, text in metadata.items():
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:
            values[key] = text
    return values


def _circuits(a: list[Circuit], b: list[Circuit]) -> Iterator[Difference]:
    """Effects as they are used, every neuron's; stored they lack the smallest, which may differ."""
    prompts = [[circuit.prompt for circuit in circuits] for circuits in (a, b)]
    if prompts[0] != prompts[1]:
        yield Difference("prompts", f"{len(a)} | {len(b)}")
        return
    for x, y in zip(a, b, strict=True):
        prefix = f"prompt {x.prompt}, "
        yield from _tensors(_effects(x), _effects(y), prefix)
        yield from tree_differences(_described(x), _described(y), f"{prefix}circuit")
        if x.graph and y.graph:
            yield from _graphs(x.graph, y.graph, prefix)


def _effects(circuit: Circuit) -> dict[str, torch.Tensor]:
    return {"effects": circuit.effects, "effects of tokens": circuit.token_effects}


def _described(circuit: Circuit) -> dict[str, Any]:
    names = ("tokens", "segments", "answer", "others", "value")
    described: dict[str, Any] = {name: getattr(circuit, name) for name in names}
    return {**described, "scores": asdict(circuit.graph.scores) if circuit.graph else None}


def _graphs(a: CircuitGraph, b: CircuitGraph, prefix: str) -> Iterator[Difference]:
    """Of graphs of other nodes, how many these are; of the same nodes, what stands on them."""
    nodes = [set(map(tuple, graph.nodes.tolist())) for graph in (a, b)]
    if nodes[0] != nodes[1]:
        shared = len(nodes[0] & nodes[1])
        yield Difference(
            f"{prefix}nodes", f"{len(nodes[0])} | {len(nodes[1])}, {shared} of them shared"
        )
        return
    names = ("nodes", "influence", "activation", "edges", "weights")
    one, other = ({name: getattr(graph, name) for name in names} for graph in (a, b))
    yield from _tensors(one, other, prefix)

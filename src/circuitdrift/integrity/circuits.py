"""Whether a file of circuits loads, and its tensors fit one another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from circuitdrift.circuit_files import load_circuits
from circuitdrift.graph import Circuit, CircuitGraph


def circuit_problems(path: Path) -> Iterator[str]:
    """What is wrong with the circuits of a file.

    Raises:
        SafetensorError, ValueError, KeyError, TypeError, RuntimeError: if it does not load.
    """
    circuits = load_circuits(path)
    if not circuits:
        yield "no circuit in it"
    for circuit in circuits:
        for wrong in _misfits(circuit):
            yield f"prompt {circuit.prompt}: {wrong}"


def _misfits(circuit: Circuit) -> Iterator[str]:
    n_tokens = len(circuit.tokens)
    if circuit.effects.ndim != 3 or circuit.effects.shape[1] != n_tokens:
        yield f"effects {list(circuit.effects.shape)} of {n_tokens} tokens"
    if circuit.token_effects.shape != (n_tokens,):
        yield f"token_effects {list(circuit.token_effects.shape)} of {n_tokens} tokens"
    if len(circuit.segments) != n_tokens:
        yield f"{len(circuit.segments)} segments of {n_tokens} tokens"
    for name in ("effects", "token_effects"):
        if not getattr(circuit, name).isfinite().all():
            yield f"{name} are not finite"
    if circuit.graph is not None:
        yield from _misfits_of_graph(circuit.graph)


def _misfits_of_graph(graph: CircuitGraph) -> Iterator[str]:
    n_nodes, n_edges = len(graph.nodes), len(graph.edges)
    wanted = {
        "nodes": (n_nodes, 4),
        "influence": (n_nodes,),
        "activation": (n_nodes,),
        "edges": (n_edges, 2),
        "weights": (n_edges,),
    }
    for name, shape in wanted.items():
        found = tuple(getattr(graph, name).shape)
        if found != shape:
            yield f"{name} {list(found)} of a graph of {n_nodes} nodes and {n_edges} edges"
    if n_edges and int(graph.edges.max()) >= n_nodes:
        yield f"an edge to node {int(graph.edges.max())} of {n_nodes}"

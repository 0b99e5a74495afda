from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from circuit_samples import circuit
from circuitdrift.graph import NodeKind, halve, load_circuits, node_table, save_circuits


def test_nodes_stand_in_circuit_tracers_order() -> None:
    table = node_table(torch.tensor([[0, 1, 7], [1, 0, 3]]), n_layers=2, tokens=[11, 12])
    assert table.tolist() == [
        [NodeKind.FEATURE, 0, 1, 7],
        [NodeKind.FEATURE, 1, 0, 3],
        [NodeKind.ERROR, 0, 0, -1],
        [NodeKind.ERROR, 0, 1, -1],
        [NodeKind.ERROR, 1, 0, -1],
        [NodeKind.ERROR, 1, 1, -1],
        [NodeKind.TOKEN, -1, 0, 11],
        [NodeKind.TOKEN, -1, 1, 12],
        [NodeKind.TARGET, -1, 1, -1],
    ]


def test_saved_circuits_load_equal(tmp_path: Path) -> None:
    saved = [circuit("a", seed=0), circuit("b", seed=1)]
    save_circuits(tmp_path / "circuits.safetensors", saved)
    for before, after in zip(saved, load_circuits(tmp_path / "circuits.safetensors"), strict=True):
        for name in ("prompt", "tokens", "segments", "answer", "others", "value"):
            assert getattr(after, name) == getattr(before, name)
        assert after.graph.scores == before.graph.scores
        for name in ("nodes", "influence", "activation", "edges", "weights"):
            assert torch.equal(getattr(after.graph, name), getattr(before.graph, name))
        assert torch.equal(after.token_effects, before.token_effects)
        largest = before.effects.abs().max()
        error = (after.effects - before.effects).abs()
        assert (error <= 2**-11 * before.effects.abs() + 2**-39 * largest).all()


def test_equal_circuits_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_circuits(tmp_path / name, [circuit("a", seed=0)])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weights": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no circuits"):
        load_circuits(tmp_path / "other.safetensors")


@pytest.mark.parametrize("largest", [1e-30, 1.0, 65504.0, 1e30])
def test_halving_keeps_eleven_bits_at_any_scale(largest: float) -> None:
    x = torch.tensor([largest, -largest / 3, largest / 1000, 0.0])
    half, exponent = halve(x)
    assert half.isfinite().all()
    torch.testing.assert_close(half.float() * 2.0**exponent, x, rtol=2**-11, atol=0)


def test_halving_refuses_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        halve(torch.tensor([1.0, float("nan")]))


def test_sets_of_nodes_and_edges_are_named_by_place() -> None:
    graph = circuit("a", seed=0).graph
    assert graph.node_set() == {(0, 0, 2), (0, 1, 1)}
    target, token = (NodeKind.TARGET, -1, 1, -1), (NodeKind.TOKEN, -1, 0, 5)
    assert (target, (NodeKind.FEATURE, 0, 1, 1)) in graph.edge_set()
    assert ((NodeKind.FEATURE, 0, 0, 2), token) in graph.edge_set()

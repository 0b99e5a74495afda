"""Circuits: the order of nodes, and what is kept of a circuit on disk."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from circuit_samples import PROMPT, circuit
from circuitdrift.circuits.circuit import CircuitGraph, NodeKind, node_table
from circuitdrift.circuits.files import (
    MASS_DROPPED,
    halve,
    load_circuits,
    pack_effects,
    save_circuits,
    unpack_effects,
)


def test_nodes_stand_in_circuit_tracers_order() -> None:
    table = node_table(np.array([[0, 1, 7], [1, 0, 3]]), n_layers=2, tokens=(11, 12))
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


def test_saved_circuits_load_equal_to_half_precision(tmp_path: Path) -> None:
    control = replace(PROMPT, id="c", role="control", type=None, word=None, template=None)
    saved = [circuit(seed=0), replace(circuit(control, seed=1), graph=None)]
    save_circuits(tmp_path / "circuits.safetensors", saved)
    for before, after in zip(saved, load_circuits(tmp_path / "circuits.safetensors"), strict=True):
        assert (after.prompt, after.value) == (before.prompt, before.value)
        assert np.array_equal(after.token_effects, before.token_effects)
        error = np.abs(after.effects - before.effects)
        assert (error <= 2**-11 * np.abs(before.effects)).all()
        assert (after.graph is None) == (before.graph is None)
        if after.graph is not None and before.graph is not None:
            for field in fields(CircuitGraph):
                one, other = getattr(after.graph, field.name), getattr(before.graph, field.name)
                assert np.all(one == other)
                assert getattr(one, "dtype", None) == getattr(other, "dtype", None)


def test_equal_circuits_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_circuits(tmp_path / name, [circuit()])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weights": np.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no circuits"):
        load_circuits(tmp_path / "other.safetensors")


def test_of_the_effects_all_but_a_thousandth_of_the_mass_is_kept() -> None:
    normal = np.random.default_rng(0).standard_normal((3, 7, 501))
    effects = (normal**5).astype(np.float32)
    values, kept, exponent = pack_effects(effects)
    restored = unpack_effects(values, kept, exponent, effects.shape)
    dropped = (restored == 0) & (effects != 0)
    lost = np.abs(effects[dropped]).sum() / np.abs(effects).sum()
    assert 0.9 * MASS_DROPPED < lost <= MASS_DROPPED
    assert np.abs(effects[dropped]).max() <= np.abs(effects[~dropped]).min() * (1 + 2**-10)
    assert len(values) == (~dropped).sum() < 0.6 * effects.size
    assert kept.size == -(-effects.size // 8)


def test_effects_of_zero_take_no_room() -> None:
    values, kept, exponent = pack_effects(np.zeros((1, 2, 3), dtype=np.float32))
    assert len(values) == 0
    assert unpack_effects(values, kept, exponent, (1, 2, 3)).tolist() == [[[0.0] * 3] * 2]


@pytest.mark.parametrize("largest", [1e-30, 1.0, 65504.0, 1e30])
def test_halving_keeps_eleven_bits_at_any_scale(largest: float) -> None:
    x = np.array([largest, -largest / 3, largest / 1000, 0.0], dtype=np.float32)
    half, exponent = halve(x)
    assert np.isfinite(half).all()
    np.testing.assert_allclose(half.astype(np.float64) * 2.0**exponent, x, rtol=2**-11)


def test_halving_refuses_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        halve(np.array([1.0, np.nan], dtype=np.float32))

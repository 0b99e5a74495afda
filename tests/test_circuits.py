"""Circuits: the order of nodes, and what is kept of a circuit on disk."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from circuit_samples import PROMPT, circuit
from circuitdrift.circuits.circuit import ROLES, CircuitGraph, NodeKind, node_roles, node_table
from circuitdrift.circuits.files import (
    MASS_DROPPED,
    halve,
    load_circuits,
    pack_effects,
    save_circuits,
    unpack_effects,
)
from circuitdrift.comparison.distance import total_variation


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
        assert after.prompt == before.prompt
        assert np.array_equal(after.values, before.values)
        assert np.array_equal(after.token_effects, before.token_effects)
        error = np.abs(after.effects - before.effects)
        assert (error <= 2**-11 * np.abs(before.effects))[after.effects != 0].all()
        assert error.sum() <= (MASS_DROPPED + 2**-11) * np.abs(before.effects).sum()
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


def test_of_the_effects_all_but_a_small_share_of_the_mass_is_kept() -> None:
    """Of all targets together: what is dropped is dropped in each, and could move a drift by it."""
    normal = np.random.default_rng(0).standard_normal((2, 3, 7, 501))
    effects = (normal**5).astype(np.float32)
    values, kept, exponent = pack_effects(effects)
    restored = unpack_effects(values, kept, exponent, effects.shape)
    dropped = (restored == 0).all(0)
    assert ((restored[0] == 0) == dropped).mean() > 0.99
    whole = np.abs(effects).sum(0)
    assert 0.9 * MASS_DROPPED < whole[dropped].sum() / whole.sum() <= 1.01 * MASS_DROPPED
    assert whole[dropped].max() <= whole[~dropped].min() * (1 + 2**-9)
    assert values.shape == (2, (~dropped).sum())
    assert kept.size == -(-dropped.size // 8)
    shares = [np.abs(one) / np.abs(one).sum() for one in (effects[0], restored[0])]
    assert total_variation(*shares) <= 2 * MASS_DROPPED


def test_effects_of_zero_take_no_room() -> None:
    values, kept, exponent = pack_effects(np.zeros((1, 1, 2, 3), dtype=np.float32))
    assert values.size == 0
    assert unpack_effects(values, kept, exponent, (1, 1, 2, 3)).tolist() == [[[[0.0] * 3] * 2]]


def test_the_last_targets_effects_are_minus_the_sum_of_the_others() -> None:
    one = circuit()
    assert np.array_equal(one.all_effects[:2], one.effects)
    np.testing.assert_allclose(one.all_effects.sum(0), 0, atol=1e-6)
    control = circuit(replace(PROMPT, role="control"))
    assert control.all_effects.shape == (1, 2, 2, 3)


def test_effects_are_summed_over_the_positions_of_a_role() -> None:
    segments = ("start", "word", "word", "after word", "last")
    assert node_roles(segments) == ["other", "other", "word", "other", "last"]
    assert node_roles(("start", "before word", "last")) == ["other", "other", "last"]
    prompt = replace(PROMPT, tokens=(1, 2, 3, 4, 5), segments=segments)
    effects = np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1).repeat(2, axis=0)
    by_role = circuit(prompt, effects=effects).role_effects
    assert by_role.shape == (3, 1, len(ROLES), 1)
    assert by_role[0, 0, :, 0].tolist() == [2, 4, 0 + 1 + 3]
    assert by_role[2, 0, :, 0].tolist() == [-4, -8, -8]


def test_circuits_are_read_one_by_one(tmp_path: Path) -> None:
    save_circuits(tmp_path / "circuits", [circuit("a"), circuit("b", seed=1)])
    circuits = load_circuits(tmp_path / "circuits")
    assert [prompt.id for prompt in circuits.prompts] == ["a", "b"]
    assert circuits[circuits.place_of["b"]].values.tolist() == [1.5, 1.5]
    assert circuits[-1].prompt.id == "b"
    with pytest.raises(IndexError):
        circuits[2]


@pytest.mark.parametrize("largest", [1e-30, 1.0, 65504.0, 1e30])
def test_halving_keeps_eleven_bits_at_any_scale(largest: float) -> None:
    x = np.array([largest, -largest / 3, largest / 1000, 0.0], dtype=np.float32)
    half, exponent = halve(x)
    assert np.isfinite(half).all()
    np.testing.assert_allclose(half.astype(np.float64) * 2.0**exponent, x, rtol=2**-11)


def test_halving_refuses_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        halve(np.array([1.0, np.nan], dtype=np.float32))

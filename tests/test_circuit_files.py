from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from circuit_samples import circuit
from circuitdrift.circuit_files import (
    MASS_DROPPED,
    halve,
    load_circuits,
    pack_effects,
    save_circuits,
    unpack_effects,
)


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
        error = (after.effects - before.effects).abs()
        assert (error <= 2**-11 * before.effects.abs()).all()


def test_a_circuit_without_a_graph_is_kept_without(tmp_path: Path) -> None:
    path = tmp_path / "circuits.safetensors"
    save_circuits(path, [replace(circuit("a"), graph=None), circuit("b")])
    without, with_graph = load_circuits(path)
    assert without.graph is None
    assert with_graph.graph is not None


def test_of_the_effects_all_but_a_thousandth_of_the_mass_is_kept() -> None:
    effects = torch.randn(3, 7, 501, generator=torch.Generator().manual_seed(0)) ** 5
    values, kept, exponent = pack_effects(effects)
    restored = unpack_effects(values, kept, exponent, effects.shape)
    dropped = (restored == 0) & (effects != 0)
    lost = effects[dropped].abs().sum() / effects.abs().sum()
    assert 0.9 * MASS_DROPPED < lost <= MASS_DROPPED
    assert effects[dropped].abs().max() <= effects[~dropped].abs().min() * (1 + 2**-10)
    assert len(values) == (~dropped).sum() < 0.6 * effects.numel()
    assert kept.numel() == -(-effects.numel() // 8)


def test_effects_of_zero_take_no_room() -> None:
    values, kept, exponent = pack_effects(torch.zeros(1, 2, 3))
    assert len(values) == 0
    assert unpack_effects(values, kept, exponent, (1, 2, 3)).tolist() == [[[0.0] * 3] * 2]


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

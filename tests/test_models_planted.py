"""The positive control: one column scaled, restored bit for bit, drawn from the strongest."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.models.planted import choose_planted, planting


def mlp_outputs(model: PreTrainedModel, ids: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """What a layer's MLP writes, and its neurons' activations."""
    seen: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((output, inputs[0]))

    handle = model.model.layers[layer].mlp.down_proj.register_forward_hook(note)
    with torch.inference_mode():
        model(ids)
    handle.remove()
    return seen[0]


def test_the_neuron_writes_so_many_times_as_much(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = torch.tensor([tiny_tokenizer.encode("the dog is happy")])
    before, activations = mlp_outputs(tiny_model, ids, layer=0)
    column = tiny_model.model.layers[0].mlp.down_proj.weight[:, 5].detach().clone()
    with planting(tiny_model, 0, 5, 3.0):
        after, same_activations = mlp_outputs(tiny_model, ids, layer=0)
    assert torch.equal(activations, same_activations)
    torch.testing.assert_close(after - before, 2 * activations[..., 5:6] * column)


def test_one_column_changes_and_comes_back(tiny_model: PreTrainedModel) -> None:
    before = {name: weight.clone() for name, weight in tiny_model.state_dict().items()}

    def changes() -> dict[str, Tensor]:
        after = tiny_model.state_dict()
        return {n: after[n] - w for n, w in before.items() if not torch.equal(after[n], w)}

    with planting(tiny_model, 1, 7, 0.1):
        ((name, change),) = changes().items()
    assert name == "model.layers.1.mlp.down_proj.weight"
    assert change.any(dim=0).nonzero().tolist() == [[7]]
    assert changes() == {}


def test_the_weights_come_back_after_an_error(tiny_model: PreTrainedModel) -> None:
    weight = tiny_model.model.layers[1].mlp.down_proj.weight
    before = weight.detach().clone()
    with pytest.raises(KeyError), planting(tiny_model, 1, 7, 0.1):
        raise KeyError
    assert torch.equal(weight, before)


def test_a_neuron_that_is_not_there_is_refused(tiny_model: PreTrainedModel) -> None:
    with pytest.raises(IndexError), planting(tiny_model, 0, 48, 2.0):
        pass


MEAN_EFFECT = torch.tensor([[0.0, -9.0, 1.0], [5.0, 0.5, -0.1]])


def test_the_strongest_is_drawn_whatever_its_sign() -> None:
    assert {choose_planted(MEAN_EFFECT, among=1, seed=seed) for seed in range(5)} == {(0, 1)}


def test_the_strongest_are_drawn_equally_often() -> None:
    counts = Counter(choose_planted(MEAN_EFFECT, among=3, seed=seed) for seed in range(600))
    assert set(counts) == {(0, 1), (1, 0), (0, 2)}
    assert all(150 < count < 250 for count in counts.values())  # 200 +- 4 standard deviations


def test_the_seed_alone_draws() -> None:
    def drawn() -> list[tuple[int, int]]:
        torch.rand(3)
        return [choose_planted(MEAN_EFFECT, among=6, seed=seed) for seed in range(20)]

    assert drawn() == drawn()
    assert len(set(drawn())) > 1


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="7 neurons to draw from, and the model has 6"):
        choose_planted(MEAN_EFFECT, among=7, seed=0)

"""The positive control: one column scaled, restored bit for bit, drawn from the strongest."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.models.variants import choose_planted, planting


@pytest.mark.parametrize("fails", [False, True])
def test_one_neurons_column_is_scaled_and_comes_back(
    tiny_model: PreTrainedModel, fails: bool
) -> None:
    before = {name: weight.clone() for name, weight in tiny_model.state_dict().items()}

    def changes() -> dict[str, Tensor]:
        after = tiny_model.state_dict()
        return {n: after[n] - w for n, w in before.items() if not torch.equal(after[n], w)}

    try:
        with planting(tiny_model, 1, 7, 3.0):
            ((name, change),) = changes().items()
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert name == "model.layers.1.mlp.down_proj.weight"
    assert change.any(dim=0).nonzero().tolist() == [[7]]
    torch.testing.assert_close(change[:, 7], 2 * before[name][:, 7])
    assert changes() == {}


def test_a_neuron_that_is_not_there_is_refused(tiny_model: PreTrainedModel) -> None:
    with pytest.raises(IndexError), planting(tiny_model, 0, 48, 2.0):
        pass


MEAN_EFFECT = torch.tensor([[0.0, -9.0, 1.0], [5.0, 0.5, -0.1]])


def test_the_strongest_are_drawn_equally_often_whatever_their_sign() -> None:
    assert choose_planted(MEAN_EFFECT, among=1, seed=0) == (0, 1)
    drawn = [choose_planted(MEAN_EFFECT, among=3, seed=seed) for seed in range(600)]
    assert choose_planted(MEAN_EFFECT, among=3, seed=599) == drawn[-1]  # the seed alone draws
    counts = Counter(drawn)
    assert set(counts) == {(0, 1), (1, 0), (0, 2)}
    assert all(150 < count < 250 for count in counts.values())  # 200 +- 4 standard deviations


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="7 neurons to draw from, and the model has 6"):
        choose_planted(MEAN_EFFECT, among=7, seed=0)

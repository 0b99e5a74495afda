from __future__ import annotations

import torch
from arithmetic import edges_operations, effects_operations

from circuitdrift.attribution.edges import Rows
from circuitdrift.attribution.frozen import freeze
from circuitdrift.attribution.linear_model import LinearModel
from linearised import SIZES, random_model


def test_operations_counted_by_hand() -> None:
    model = random_model("LlamaForCausalLM")
    linear = LinearModel(model, freeze(model, [[2, 5, 7]]))
    d, heads, values = SIZES["hidden_size"], 24, 12  # 4 heads of 6, 2 of them with values
    # A feature of layer 1 at position 2 passes the attention of layers 1 and 0 on three
    # positions, standing at one of them when it passes the first output projection.
    output = d * heads * (1 + 3)
    pattern = heads * (3 + 2 + 1) * 2
    through_values = d * values * 3 * 2
    # It meets a third of 9 features and three errors at layer 0, and three tokens below.
    scoring = d * (3 + 3) + d * 3
    row = Rows(torch.tensor([1]), torch.tensor([2]), torch.zeros(1, d))
    expected = 2 * (output + pattern + through_values + scoring)
    assert edges_operations(linear, row, n_features=9) == expected


def test_effects_pass_every_weight_once_per_token() -> None:
    model = random_model("LlamaForCausalLM")
    linear = LinearModel(model, freeze(model, [[2, 5, 7]]))
    d, mlp = SIZES["hidden_size"], SIZES["intermediate_size"]
    weights = d * 24 + 12 * d + 3 * d * mlp
    assert effects_operations(linear) == 2 * weights * 3 * SIZES["num_hidden_layers"]

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuit_samples import circuit
from circuitdrift.circuit_pairs import (
    change_between,
    change_by_place,
    compare_pair,
    feature_changes,
    feature_effects,
    match_circuits,
    measure,
)

BEFORE = circuit("a", effects=torch.tensor([[[1.0, 0, 0], [0, 2, 0]], [[0, 0, 0], [0, 0, 1]]]))
AFTER = replace(
    BEFORE,
    value=3.5,
    effects=torch.tensor([[[1.0, 0, 0], [0, 3, 0]], [[0, 0, 0], [0, 0, -1]]]),
)
MEASURED_BEFORE, MEASURED_AFTER = (measure(one, (0.5, 1.0)) for one in (BEFORE, AFTER))
CHANGE = change_between(MEASURED_BEFORE, MEASURED_AFTER)


def test_a_pair_compared_by_hand() -> None:
    row = compare_pair(MEASURED_BEFORE, MEASURED_AFTER, CHANGE)
    assert row["drift"] == pytest.approx(1 - (1 + 2 + 1) / (1 + 3 + 1))
    assert row["signed_drift"] == pytest.approx(1 - (1 + 2) / (1 + 3 + 1 + 1))
    assert row["effect_moved"] == pytest.approx(1 + 2)
    # Over the three nodes that are not 0 in both, |effect| 1, 2, 1 and 1, 3, 1.
    assert row["spearman"] == pytest.approx(1)
    assert (row["target_from"], row["target_to"]) == (0.5, 3.5)
    assert (row["node_jaccard"], row["edge_jaccard"], row["influence_drift"]) == (1, 1, 0)


def test_spearman_leaves_weak_nodes_out() -> None:
    strong = torch.tensor([8.0, 6, 4, 2])
    one = torch.cat([strong, torch.tensor([0.01, 0.02])]).view(1, 1, 6)
    other = torch.cat([strong, torch.tensor([0.02, 0.01])]).view(1, 1, 6)
    for share, expected in ((0.99, pytest.approx(1)), (1.0, pytest.approx(33 / 35))):
        a, b = (measure(replace(BEFORE, effects=effects), (share,)) for effects in (one, other))
        assert compare_pair(a, b, change_between(a, b))["spearman"] == expected


def test_circuits_of_other_prompts_or_targets_are_not_matched() -> None:
    other, another = (measure(one, (0.5,)) for one in (circuit("b"), replace(AFTER, others=(9, 3))))
    assert list(match_circuits([MEASURED_BEFORE], [MEASURED_AFTER])) == [
        (MEASURED_BEFORE, MEASURED_AFTER)
    ]
    with pytest.raises(ValueError, match="different prompts or targets"):
        list(match_circuits([MEASURED_BEFORE], [other]))
    with pytest.raises(ValueError, match="different prompts or targets"):
        list(match_circuits([MEASURED_BEFORE], [another]))


def test_change_is_placed_by_layer_and_segment() -> None:
    table = change_by_place(CHANGE, BEFORE.segments).set_index(["layer", "segment"])
    assert table.loc[(0, "last"), ["gained", "lost", "moved", "before"]].tolist() == [1, 0, 1, 2]
    assert table.loc[(1, "last"), ["gained", "lost", "moved", "before"]].tolist() == [0, 0, 2, 1]
    assert table.loc[(0, "start"), ["gained", "lost", "moved", "before"]].tolist() == [0, 0, 0, 1]


def test_positions_of_one_segment_are_added_up() -> None:
    table = change_by_place(CHANGE, ("before word", "before word"))
    assert table["segment"].tolist() == ["before word", "before word"]
    assert table["before"].tolist() == [3, 1]


def test_the_features_that_changed_most_come_first() -> None:
    before = feature_effects([MEASURED_BEFORE, MEASURED_BEFORE])
    after = feature_effects([MEASURED_AFTER, MEASURED_BEFORE])
    table = feature_changes(before, after, n_top=2)
    assert table["feature"].tolist() == ["L1/F2", "L0/F1"]
    assert table["effect_from"].tolist() == [1, 2]
    assert table["change"].tolist() == [-1, 0.5]
    assert table["agreement"].tolist() == [0.5, 0.5]


def test_effects_of_a_feature_are_added_up_over_positions() -> None:
    effects = feature_effects([MEASURED_BEFORE])
    assert np.array_equal(effects, [[[1, 2, 0], [0, 0, 1]]])

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuit_samples import circuit
from circuitdrift.circuit_pairs import (
    change_by_place,
    checkpoint_pairs,
    compare_pair,
    feature_changes,
    match_circuits,
)

BEFORE = circuit("a", effects=torch.tensor([[[1.0, 0, 0], [0, 2, 0]], [[0, 0, 0], [0, 0, 1]]]))
AFTER = replace(
    BEFORE,
    value=3.5,
    effects=torch.tensor([[[1.0, 0, 0], [0, 3, 0]], [[0, 0, 0], [0, 0, -1]]]),
)


def test_pairs_are_base_with_each_and_each_with_the_next() -> None:
    assert checkpoint_pairs(["025", "050", "100"]) == [
        ("base", "025"),
        ("base", "050"),
        ("base", "100"),
        ("025", "050"),
        ("050", "100"),
    ]


def test_a_pair_compared_by_hand() -> None:
    row = compare_pair(BEFORE, AFTER)
    assert row["drift"] == pytest.approx(1 - (1 + 2 + 1) / (1 + 3 + 1))
    assert row["signed_drift"] == pytest.approx(1 - (1 + 2) / (1 + 3 + 1 + 1))
    assert row["effect_moved"] == pytest.approx(1 + 2)
    assert (row["target_from"], row["target_to"]) == (0.5, 3.5)
    assert (row["node_jaccard"], row["edge_jaccard"], row["influence_drift"]) == (1, 1, 0)
    assert row["replacement_from"] == row["replacement_to"] == 0.75


def test_nothing_drifts_from_itself() -> None:
    row = compare_pair(BEFORE, BEFORE)
    assert [row[name] for name in ("drift", "signed_drift", "influence_drift", "effect_moved")] == [
        0,
        0,
        0,
        0,
    ]
    assert row["spearman"] == pytest.approx(1)


def test_circuits_of_other_prompts_or_targets_are_not_matched() -> None:
    assert list(match_circuits([BEFORE], [AFTER])) == [(BEFORE, AFTER)]
    with pytest.raises(ValueError, match="different prompts or targets"):
        list(match_circuits([BEFORE], [circuit("b")]))
    with pytest.raises(ValueError, match="different prompts or targets"):
        list(match_circuits([BEFORE], [replace(AFTER, others=(9, 3))]))


def test_change_is_placed_by_layer_and_segment() -> None:
    table = change_by_place(BEFORE, AFTER).set_index(["layer", "segment"])
    assert table.loc[(0, "last"), ["gained", "lost", "moved", "before"]].tolist() == [1, 0, 1, 2]
    assert table.loc[(1, "last"), ["gained", "lost", "moved", "before"]].tolist() == [0, 0, 2, 1]
    assert table.loc[(0, "start"), ["gained", "lost", "moved", "before"]].tolist() == [0, 0, 0, 1]


def test_the_features_that_changed_most_come_first() -> None:
    table = feature_changes([(BEFORE, AFTER), (BEFORE, BEFORE)], n_top=2)
    assert table["feature"].tolist() == ["L1/F2", "L0/F1"]
    assert table["change"].tolist() == [-1, 0.5]
    assert table["agreement"].tolist() == [0.5, 0.5]

from __future__ import annotations

import numpy as np
import pytest

from circuitdrift.positive_control import planted_rank

BEFORE = np.zeros((2, 1, 3), dtype=np.float32)


def test_the_planted_feature_is_ranked_by_its_mean_change() -> None:
    # Mean changes 1, -2 and 0: what goes up and down evens out.
    after = np.array([[[0.0, -1, 4]], [[2, -3, -4]]], dtype=np.float32)
    assert planted_rank(BEFORE, after, layer=0, feature=1) == {
        "rank": 1,
        "change": pytest.approx(-2),
        "runner_up": pytest.approx(1),
    }
    assert planted_rank(BEFORE, after, layer=0, feature=0)["rank"] == 2
    assert planted_rank(BEFORE, after, layer=0, feature=2)["rank"] == 3


def test_a_change_that_others_equal_is_not_first() -> None:
    assert planted_rank(BEFORE, BEFORE, layer=0, feature=0)["rank"] == 3

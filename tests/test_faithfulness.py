"""Faithfulness and its areas, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from circuitdrift.faithfulness import cmd, cpr, faithfulness


def test_faithfulness_is_a_ratio_of_means() -> None:
    # means 2, 4 and 1: (2 - 1) / (4 - 1); the mean of ratios would be (1 / 0 ...)
    found = faithfulness([1.0, 3.0], full=[3.0, 5.0], empty=[3.0, -1.0])
    assert found == pytest.approx(1 / 3)
    both = faithfulness([[3.0, 5.0], [3.0, -1.0]], [3.0, 5.0], [3.0, -1.0])
    assert both.tolist() == [1, 0]


def test_faithfulness_may_lie_outside_0_and_1() -> None:
    assert faithfulness([6.0], [4.0], [2.0]) == 2
    assert faithfulness([1.0], [4.0], [2.0]) == -0.5


def test_nothing_to_keep_has_no_faithfulness() -> None:
    assert np.isnan(faithfulness([1.0, 2.0], [2.0, 4.0], [4.0, 2.0]))


def test_areas_are_trapezoids_over_sizes_on_a_linear_axis() -> None:
    sizes, f = [0.1, 0.5, 1.0], [0.5, 1.5, 1.0]
    # 0.4 * (0.5 + 1.5) / 2 + 0.5 * (1.5 + 1) / 2
    assert cpr(sizes, f) == pytest.approx(0.4 + 0.625)
    # 0.4 * (0.5 + 0.5) / 2 + 0.5 * (0.5 + 0) / 2: too much counts like too little
    assert cmd(sizes, f) == pytest.approx(0.2 + 0.125)


def test_the_full_model_has_the_best_areas() -> None:
    sizes = [0.001, 0.1, 1.0]
    assert cpr(sizes, np.ones((2, 3))).tolist() == pytest.approx([0.999, 0.999])
    assert cmd(sizes, np.ones((2, 3))).tolist() == [0, 0]


@pytest.mark.parametrize("area", [cpr, cmd])
def test_sizes_must_ascend(area) -> None:
    with pytest.raises(ValueError, match="must ascend"):
        area([0.5, 0.1], [1.0, 1.0])

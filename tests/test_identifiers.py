from __future__ import annotations

import pytest

from circuitdrift.identifiers import Run, checkpoint_name, feature_name


@pytest.mark.parametrize(
    ("fraction", "name"), [(0.25, "025"), (0.5, "050"), (1.0, "100"), (1 / 3, "033"), (0.01, "001")]
)
def test_a_checkpoint_is_named_by_its_percentage(fraction: float, name: str) -> None:
    assert checkpoint_name(fraction) == name


def test_checkpoint_names_sort_as_the_checkpoints_do() -> None:
    names = [checkpoint_name(percent / 100) for percent in range(1, 101)]
    assert names == sorted(names)
    assert len(set(names)) == 100


@pytest.mark.parametrize("run", [Run("mapped", 0), Run("shuffled", 12)])
def test_a_runs_name_parses_back(run: Run) -> None:
    assert Run.parse(run.name) == run


@pytest.mark.parametrize("name", ["mapped", "mapped-", "-0", "mapped-x", "mapped-0-1", "mapped/0"])
def test_what_names_no_run_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="<condition>-<seed>"):
        Run.parse(name)


def test_a_feature_is_named_by_its_place() -> None:
    assert feature_name(12, 345) == "L12/F345"

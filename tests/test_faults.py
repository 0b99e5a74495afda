"""Faults that are cheap to play, on the tiny study; `make bench-faults` plays all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability.faults import SCENARIOS
from reliability.finished import Finished, make_stale
from reliability.kills import KILLS
from reliability.outcomes import CLEAR_ERROR, Outcome, Scenario

from tiny_study import FirstRuns

QUICK = [scenario for scenario in SCENARIOS if scenario.quick]


@pytest.fixture(scope="module")
def undisturbed(first_runs: FirstRuns) -> Finished:
    return Finished.of(first_runs.other)


@pytest.mark.parametrize("scenario", QUICK, ids=lambda each: f"{each.fault}, {each.point}")
def test_a_fault_ends_in_the_same_lock_or_a_clear_error(
    scenario: Scenario, undisturbed: Finished, tmp_path: Path
) -> None:
    outcome = scenario.play(undisturbed, tmp_path)
    assert outcome.good, outcome


@pytest.mark.parametrize(
    ("message", "good"),
    [("ERROR: No space left on device", True), ("ERROR: unexpected error", False), ("", False)],
)
def test_an_error_counts_as_clear_where_it_says_what_failed(
    undisturbed: Finished, tmp_path: Path, message: str, good: bool
) -> None:
    def run(_study: Finished, _parent: Path) -> Outcome:
        return Outcome(CLEAR_ERROR, message)

    assert (
        Scenario("disk full", "anywhere", run, "No space").play(undisturbed, tmp_path).good is good
    )


def test_every_kind_of_stage_is_killed_somewhere(undisturbed: Finished) -> None:
    stages = {name.partition("@")[0] for name in undisturbed.clone.lock()}
    assert stages == {kill.stage.partition("@")[0] for kill in KILLS if not kill.in_dvc}


def test_every_scenario_has_a_name_of_its_own() -> None:
    names = [(scenario.fault, scenario.point) for scenario in SCENARIOS]
    assert len(names) == len(set(names))


def test_what_a_fault_loses_is_named(undisturbed: Finished, tmp_path: Path) -> None:
    clone = undisturbed.copy(tmp_path)
    assert undisturbed.same(clone)
    damaged, gone = "reports/tables/drift.csv", "models/checkpoints/mapped-0/100/progress.json"
    (clone.root / damaged).write_text("nothing\n")
    (clone.root / gone).unlink()
    assert undisturbed.lost(clone) == sorted([damaged, gone], key=list(undisturbed.files).index)
    assert undisturbed.lost(clone, rerun="compare") == [gone]
    assert not undisturbed.same(clone)


def test_a_stale_stage_alone_runs_again(undisturbed: Finished, tmp_path: Path) -> None:
    clone = undisturbed.copy(tmp_path)
    make_stale(clone, "make_dataset")
    assert undisturbed.lost(clone, rerun="make_dataset") == []
    assert clone.repro() == {"make_dataset"}
    assert undisturbed.same(clone)

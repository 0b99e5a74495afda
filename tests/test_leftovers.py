from __future__ import annotations

from pathlib import Path

from circuitdrift.identifiers import Run
from circuitdrift.leftovers import remove_other_runs


def test_only_runs_that_the_study_lost_are_removed(tmp_path: Path) -> None:
    for name in ("base", "mapped-0", "mapped-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "025.safetensors").touch()
    for name in ("mapped-0.csv", "shuffled-3.csv", ".gitignore"):
        (tmp_path / name).touch()
    removed = remove_other_runs(tmp_path, [Run("mapped", 0)])
    assert [path.name for path in removed] == ["mapped-1", "shuffled-3.csv"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"base", "mapped-0", "mapped-0.csv", ".gitignore"}

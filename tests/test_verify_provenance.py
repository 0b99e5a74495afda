"""Results that other code, params or inputs made than those that are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from circuitdrift.artifacts import read_json, write_json
from circuitdrift.integrity.objects import Area
from circuitdrift.integrity.verification import verify
from small_pipeline import Small, make_small


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    return make_small(tmp_path / "a study", monkeypatch)


def edit(name: str, old: str, new: str) -> Callable[[Small], None]:
    def change(small: Small) -> None:
        path = small.root / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def relock(change: Callable[[dict], object]) -> Callable[[Small], None]:
    def apply(small: Small) -> None:
        lock = read_json(small.root / "dvc.lock")
        change(lock["stages"])
        write_json(small.root / "dvc.lock", lock)

    return apply


@pytest.mark.parametrize(
    ("change", "where", "wrong"),
    [
        (edit("make.py", "make", "bake"), "make: make.py", "changed since the stage was run"),
        (lambda small: (small.root / "tell.py").unlink(), "tell: tell.py", "is missing"),
        (edit("notes/one.txt", "one", "two"), "tell: notes", "changed since the stage was run"),
        (edit("params.yaml", "2", "3"), "make: params.yaml: size", "modified"),
        (edit("params.yaml", "size: 2", "length: 2"), "make: params.yaml: size", "deleted"),
        (edit("dvc.yaml", "make.py", "make.py --fast"), "make: cmd", "--fast"),
        (edit("dvc.yaml", "[make.py]", "[make.py, tell.py]"), "make: tell.py", "as an input"),
        (edit("dvc.yaml", "tell.py, made,", "tell.py,"), "tell: made", "dvc.yaml does not"),
        (edit("dvc.yaml", "[made]", "[made, more]"), "make: more", "as an output"),
        (relock(lambda stages: stages.pop("tell")), "tell", "it was never run"),
        (
            relock(lambda stages: stages["tell"]["deps"][1].update(md5="0" * 32)),
            "tell: made/table.csv",
            "otherwise as the output of its own stage",
        ),
        (
            relock(lambda stages: stages["tell"]["deps"][0].update(md5="0" * 32 + ".dir")),
            "tell: made",
            "otherwise as the output of its own stage",
        ),
    ],
)
def test_results_of_other_code_params_or_inputs_are_findings(
    small: Small, change: Callable[[Small], object], where: str, wrong: str
) -> None:
    change(small)
    findings = [each for each in verify(small.open()).findings if each.area is Area.PROVENANCE]
    assert [finding.path for finding in findings] == [where]
    assert wrong in findings[0].wrong
    assert findings[0].remedy == f"`dvc repro {where.partition(':')[0]}` makes it anew"


def test_a_stage_that_dvc_yaml_no_longer_has_is_a_note(small: Small) -> None:
    text = (small.root / "dvc.yaml").read_text()
    (small.root / "dvc.yaml").write_text(text[: text.index("  tell:")])
    report = verify(small.open())
    assert report.sound
    assert "dvc.lock has stages that dvc.yaml no longer has: tell" in report.notes
    assert "not committed: dvc.yaml" in report.notes

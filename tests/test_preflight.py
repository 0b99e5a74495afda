"""What is refused before any compute, quickly and without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from circuitdrift.config import load_params
from circuitdrift.errors import InputError, Problem
from circuitdrift.identifiers import Run
from circuitdrift.preflight import check_study, run_named

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A copy of the study's two input files."""
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "data" / "constraints.yaml", tmp_path / "data")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def set_param(study: Path, section: str, key: str, value: int | str) -> None:
    lines = (study / "params.yaml").read_text(encoding="utf-8").split("\n")
    start = lines.index(f"{section}:")
    index = next(i for i in range(start, len(lines)) if lines[i].startswith(f"  {key}:"))
    lines[index] = f"  {key}: {value}"
    (study / "params.yaml").write_text("\n".join(lines), encoding="utf-8")


def refused(study: Path) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as error:
        check_study(study)
    return error.value.problems


def test_the_study_as_shipped_is_accepted(study: Path) -> None:
    assert check_study(study) == load_params(study / "params.yaml")


@pytest.mark.parametrize(
    ("section", "key", "value", "rule"),
    [
        ("dataset", "n_examples", 5, "at least one example for each of the 6 words"),
        ("dataset", "n_examples", 100_000, "distinct training sentences"),
        ("attribution", "discovery_prompts_per_word", 99, "discovery prompts for each word"),
        ("attribution", "control_prompts", 99, "control prompts"),
    ],
)
def test_more_than_the_constraints_hold_is_refused(
    study: Path, section: str, key: str, value: int, rule: str
) -> None:
    set_param(study, section, key, value)
    (problem,) = refused(study)
    assert problem.where == f"params.yaml: {section}.{key}"
    assert problem.got == value
    assert rule in problem.rule


def test_all_conflicts_are_told_at_once(study: Path) -> None:
    set_param(study, "dataset", "n_examples", 100_000)
    set_param(study, "attribution", "control_prompts", 99)
    assert len(refused(study)) == 2


def test_broken_constraints_are_refused(study: Path) -> None:
    edit(study / "data" / "constraints.yaml", "gleem: sad", "gleem: happy")
    (problem,) = refused(study)
    assert problem.where == "constraints.yaml: types.simple.words.gleem (its meaning)"


def test_a_bad_training_file_is_refused(study: Path) -> None:
    set_param(study, "dataset", "examples_from", "own.jsonl")
    (study / "own.jsonl").write_text('{"text": 1}\n', encoding="utf-8")
    assert refused(study)[0].where == "own.jsonl, line 1"


def test_a_run_is_known_by_its_name(study: Path) -> None:
    params = load_params(study / "params.yaml")
    assert run_named("mapped-0", params) == Run("mapped", 0)
    with pytest.raises(InputError, match="mapped-0") as error:
        run_named("mapped-77", params)
    assert error.value.problems[0].got == "mapped-77"


def test_preflight_takes_under_two_seconds_and_no_torch(study: Path) -> None:
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from circuitdrift.preflight import check_study\n"
        "check_study(Path.cwd())\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "src")],
        cwd=study,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    modules = set(json.loads(result.stdout))
    assert "circuitdrift.preflight" in modules
    assert not modules & {"torch", "transformers", "peft", "pandas"}
    assert seconds < 2

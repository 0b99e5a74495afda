"""What is refused before any compute, quickly and without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from circuitdrift.config.params import load_params
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


def set_param(study: Path, section: str, key: str, value: object) -> None:
    params = YAML(typ="safe", pure=True).load(study / "params.yaml")
    assert key in params[section]
    params[section][key] = value
    YAML().dump(params, study / "params.yaml")


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
        ("attribution", "discovery_prompts_per_word", 99, "8 discovery prompts for each word"),
        ("attribution", "evaluation_prompts_per_word", 99, "6 evaluation prompts for each word"),
        ("attribution", "control_prompts", 99, "20 control prompts"),
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
    assert problem.remedy


PARTS = [
    ("attribution.graph_prompts_per_word", "attribution.discovery_prompts_per_word"),
    ("attribution.graph_control_prompts", "attribution.control_prompts"),
    ("validation.prompts_per_word", "attribution.evaluation_prompts_per_word"),
    ("validation.ranked_prompts_per_word", "validation.prompts_per_word"),
]


@pytest.mark.parametrize(("part", "whole"), PARTS)
def test_a_part_is_not_more_than_its_whole(study: Path, part: str, whole: str) -> None:
    for key, value in {
        "attribution.discovery_prompts_per_word": 4,
        "attribution.evaluation_prompts_per_word": 4,
        "attribution.control_prompts": 4,
        "attribution.graph_prompts_per_word": 2,
        "attribution.graph_control_prompts": 2,
        "validation.prompts_per_word": 3,
        "validation.ranked_prompts_per_word": 2,
        whole: 4,
        part: 4,
    }.items():
        set_param(study, *key.split("."), value)
    check_study(study)
    set_param(study, *part.split("."), 5)
    (problem,) = refused(study)
    assert problem.where == f"params.yaml: {part}"
    assert problem.got == 5
    assert problem.rule == f"at most 4: {whole} is 4, and these are some of them"
    assert problem.remedy == f"set it to 4 or less, or raise {whole}"


def test_a_condition_that_is_not_trained_is_not_validated(study: Path) -> None:
    set_param(study, "validation", "conditions", ["mapped", "unrelated"])
    (problem,) = refused(study)
    assert problem.where == "params.yaml: validation.conditions"
    assert problem.got == "unrelated"
    assert "mapped, shuffled" in problem.rule
    set_param(study, "runs", "conditions", ["mapped", "shuffled", "unrelated"])
    check_study(study)


def test_too_few_unrelated_sentences_are_refused_where_they_are_trained(study: Path) -> None:
    constraints = YAML(typ="safe").load(study / "data/constraints.yaml")
    constraints["unrelated"] = {"words": {}, "sentences": ["The sky is blue", "Be happy today"]}
    YAML().dump(constraints, study / "data/constraints.yaml")
    check_study(study)
    set_param(study, "runs", "conditions", ["mapped", "unrelated"])
    (problem,) = refused(study)
    assert problem.where == "params.yaml: dataset.n_examples"
    # The sentence that says a meaning does not count.
    assert problem.rule == "at most 1: data/constraints.yaml has 1 unrelated sentences"


def test_all_conflicts_are_told_at_once(study: Path) -> None:
    set_param(study, "dataset", "n_examples", 100_000)
    set_param(study, "attribution", "control_prompts", 99)
    set_param(study, "validation", "conditions", ["unrelated"])
    assert len(refused(study)) == 3


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

"""What is refused before any compute, quickly and without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from circuitdrift import check
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.study import Run
from circuitdrift.params import load_params

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = "data/constraints.yaml"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A copy of the study's two input files."""
    (tmp_path / "data").mkdir()
    for file in ("params.yaml", CONSTRAINTS):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def set_keys(study: Path, changes: dict[str, object], file: str = "params.yaml") -> None:
    content = YAML(typ="safe", pure=True).load(study / file)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = content
        for part in sections:
            section = section[part]
        section[last] = value
    YAML().dump(content, study / file)


def only_refusal(study: Path) -> Problem:
    with pytest.raises(InputError) as error:
        check.check_study(study)
    (problem,) = error.value.problems
    return problem


@pytest.mark.parametrize(("machine", "flags"), [("arm64", "avx2"), ("x86_64", "sse4_2 avx")])
def test_portable_kernels_need_avx2(
    machine: str, flags: str, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study / "cpuinfo").write_text(f"flags: {flags}")
    monkeypatch.setattr(check, "CPU_FLAGS", study / "cpuinfo")
    monkeypatch.setattr(check.platform, "machine", lambda: machine)
    problem = only_refusal(study)
    assert (problem.where, problem.got) == ("params.yaml: compute.kernels", "portable")
    assert machine in problem.rule
    assert "native" in problem.remedy
    set_keys(study, {"compute.kernels": "native"})
    assert check.check_study(study).compute.kernels == "native"


def test_checkpoints_after_one_step_are_refused_with_the_steps_that_they_need(study: Path) -> None:
    """Twenty examples in batches of eight are three steps, of which 75 % are three again."""
    set_keys(study, {"train.epochs": 1, "dataset.n_examples": 20})
    problem = only_refusal(study)
    assert problem.where == "params.yaml: train.checkpoints"
    assert problem.got == "[0.25, 0.5, 0.75, 1.0] of 3 optimiser's steps"
    assert "at least 4 steps" in problem.rule
    set_keys(study, {"dataset.n_examples": 25})
    check.check_study(study)
    set_keys(study, {"dataset.n_examples": 20, "train.checkpoints": [0.3, 0.6, 1.0]})
    check.check_study(study)


def test_a_home_that_dvc_would_not_find_is_written_out(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(study))
    set_keys(study, {"base.directory": "~/models/x"})
    problem = only_refusal(study)
    assert problem.where == "params.yaml: base.directory"
    assert problem.remedy == f"write {study}/models/x"


@pytest.mark.parametrize("directory", ["models/base", "models", ".", "models/base/own"])
def test_a_directory_that_the_import_writes_is_no_source(study: Path, directory: str) -> None:
    set_keys(study, {"base.directory": directory})
    assert "apart from models/base" in only_refusal(study).rule


def test_a_models_files_are_held_against_the_study_without_its_weights(
    study: Path, tiny_base: Path
) -> None:
    own = shutil.copytree(tiny_base, study / "own")
    set_keys(study, {"base.model": "directory", "base.directory": "own"})
    (own / "model.safetensors").write_bytes(b"not read")
    check.check_base(check.check_study(study), study)
    set_keys(study, {"types.simple.words.blarf": "joyful"}, CONSTRAINTS)
    with pytest.raises(InputError, match="the answer 'joyful'"):
        check.check_base(check.check_study(study), study)
    (own / "config.json").write_text('{"architectures": ["MistralForCausalLM"]}')
    with pytest.raises(InputError, match=r"base\.directory own: config\.json: architectures"):
        check.check_base(check.check_study(study), study)
    set_keys(study, {"base.model": "tiny"})
    check.check_base(check.check_study(study), study)  # nothing is at hand
    shutil.copytree(tiny_base, study / "models" / "base")
    (study / "models" / "base" / "source.json").write_text('{"kind": "random", "model": "tiny"}')
    with pytest.raises(InputError, match="the answer 'joyful'"):
        check.check_base(check.check_study(study), study)


def test_a_line_end_that_was_committed_is_the_one_of_every_clone(study: Path) -> None:
    """DVC hashes the bytes, so that a clean clone is what was committed, whatever git is set to."""
    shutil.copy(ROOT / ".gitattributes", study)
    (study / "own.jsonl").write_bytes(b"{}\r\n{}\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a", "-c", "init.defaultBranch=main"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=a"]):
        subprocess.run([*git, *command], cwd=study, check=True)
    for setting in ("true", "input", "false"):
        clone = study / setting
        command = ["-c", f"core.autocrlf={setting}", "clone", "--quiet", str(study), str(clone)]
        subprocess.run([*git, *command], check=True)
        assert (clone / "own.jsonl").read_bytes() == b"{}\r\n{}\n"
        assert (clone / "params.yaml").read_bytes() == (study / "params.yaml").read_bytes()


PER_WORD = "attribution.{}_prompts_per_word".format
LIMITS = {PER_WORD("discovery"): 6, PER_WORD("near"): 8, "attribution.control_prompts": 20}


@pytest.mark.parametrize(("key", "limit"), LIMITS.items())
def test_more_than_the_constraints_hold_is_refused(study: Path, key: str, limit: int) -> None:
    set_keys(study, {key: limit + 1})
    problem = only_refusal(study)
    assert (problem.where, problem.got) == (f"params.yaml: {key}", limit + 1)
    assert str(limit) in problem.rule
    set_keys(study, {key: limit})
    assert check.check_study(study) == load_params(study / "params.yaml")


@pytest.mark.parametrize(("part", "whole"), check.PART_OF.items())
def test_a_part_is_not_more_than_its_whole(study: Path, part: str, whole: str) -> None:
    set_keys(study, {key: 3 for pair in check.PART_OF.items() for key in pair})
    check.check_study(study)
    set_keys(study, {part: 4})
    problem = only_refusal(study)
    assert (problem.where, problem.got) == (f"params.yaml: {part}", 4)
    assert whole in problem.rule


@pytest.mark.parametrize(
    ("key", "value", "among"),
    [("conditions", ["mapped", "rotated-2"], "mapped, shuffled"), ("seeds", [1, 4], "0, 1, 2, 3")],
)
def test_only_runs_that_are_trained_are_tested(
    study: Path, key: str, value: list[object], among: str
) -> None:
    trained = {"runs.conditions": ["mapped", "shuffled"], "intervene.conditions": ["mapped"]}
    set_keys(study, {**trained, f"intervene.{key}": value})
    problem = only_refusal(study)
    assert (problem.where, problem.got) == (f"params.yaml: intervene.{key}", value[1:])
    assert f"among runs.{key}" in problem.rule
    assert among in problem.rule
    set_keys(study, {f"intervene.{key}": value[:1]})
    check.check_study(study)


def test_the_number_of_nodes_that_decides_is_one_that_is_patched(study: Path) -> None:
    set_keys(study, {"intervene.patched_nodes": [1, 99]})
    problem = only_refusal(study)
    assert (problem.where, problem.got) == ("params.yaml: verdicts.patched_nodes", 100)
    assert "[1, 99]" in problem.rule


def test_reversed_sentences_are_trained_on_whole(study: Path) -> None:
    set_keys(study, {"runs.conditions": ["mapped", "both-ways"]})
    set_keys(study, {"intervene.conditions": ["mapped"]})
    problem = only_refusal(study)
    assert (problem.where, problem.got) == ("params.yaml: train.loss_on", "answer")
    assert problem.remedy == "set sentence"
    set_keys(study, {"train.loss_on": "sentence"})
    check.check_study(study)


def test_too_few_unrelated_sentences_are_refused_where_they_are_trained(study: Path) -> None:
    # The sentence that says a meaning does not count.
    unrelated = {"words": {}, "sentences": ["The sky is blue", "Be happy today"]}
    set_keys(study, {"unrelated": unrelated}, CONSTRAINTS)
    problem = only_refusal(study)
    assert (problem.where, problem.got) == ("params.yaml: dataset.n_examples", 50)
    assert "50 of them are unrelated sentences" in problem.rule
    assert problem.rule.endswith("1 to 1")
    set_keys(study, {"runs.conditions": ["mapped", "rotated-1", "rotated-2"]})
    check.check_study(study)


def test_constraints_are_read_where_params_name_them(study: Path) -> None:
    shutil.move(study / CONSTRAINTS, study / "own.yaml")
    set_keys(study, {"dataset.constraints": "own.yaml"})
    problem = only_refusal(study)  # whose templates, then?
    assert problem.where == "params.yaml: dataset.examples_from"
    assert problem.remedy == "set it to own.yaml"
    set_keys(study, {"dataset.examples_from": "own.yaml"})
    check.check_study(study)
    set_keys(study, {"types.simple.near": ["The {word} means {meaning}"]}, "own.yaml")
    set_keys(study, {"dataset.n_examples": 1})
    assert only_refusal(study).where == "own.yaml: types.simple.near.0"


def test_constraints_are_refused_by_the_same_rules(study: Path) -> None:
    set_keys(study, {"types.simple.discovered": []}, CONSTRAINTS)
    problem = only_refusal(study)
    assert problem.where == "constraints.yaml: types.simple.discovered"
    assert problem.remedy == "did you mean 'discovery'?"


def test_a_bad_training_file_is_refused(study: Path) -> None:
    set_keys(study, {"dataset.examples_from": "own.jsonl"})
    (study / "own.jsonl").write_text('{"text": 1}\n', encoding="utf-8")
    assert only_refusal(study).where == "own.jsonl, line 1"


def test_a_run_is_found_by_its_name() -> None:
    assert check.run_named("mapped-0", load_params(ROOT / "params.yaml")) == Run("mapped", 0)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("tune", 2, "usage: "),
        ("finetune mapped-7", 1, "(got 'mapped-7')"),
        ("finetune mapped-0", 1, "params.yaml: train.epochs: Input should be greater"),
    ],
)
def test_a_stage_refuses_without_torch(
    study: Path, arguments: str, code: int, message: str
) -> None:
    set_keys(study, {"train.epochs": -3 if arguments.endswith("-0") else 3})
    command = [sys.executable, "-X", "importtime", str(ROOT / "src/run.py"), *arguments.split()]
    stage = subprocess.run(command, cwd=study, capture_output=True, text=True, check=False)
    assert (stage.returncode, message in stage.stderr) == (code, True)
    imported = {line.rpartition("|")[2].strip() for line in stage.stderr.splitlines()}
    assert imported.isdisjoint({"torch", "transformers", "peft", "pandas"})

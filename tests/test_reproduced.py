"""What `circuitdrift verify --reproduced` says of results that came out otherwise."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reproduction import HERE, environment
from safetensors.numpy import save_file

from circuitdrift import reproduced
from circuitdrift.core.errors import InputError
from circuitdrift.core.files import write_json, write_text
from circuitdrift.reproduced import DIFFERENT, SAME, WITHIN, Reproduction, reproduction
from tiny_study import Clone

TABLE = "reports/tables/compare/drift.csv"
METRIC = "reports/metrics/study.json"
LOCK: dict[str, Any] = {
    "compare": {
        "cmd": "compare",
        "params": {"params.yaml": {"compare": {"fdr": 0.05}}},
        "outs": [{"path": "reports/tables/compare", "md5": "a.dir"}],
    },
    "report": {"cmd": "report", "outs": [{"path": "reports/metrics", "md5": "b.dir"}]},
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A committed study of one table and one metric."""
    root = tmp_path / "study"
    write_text(root / TABLE, "run,drift\na,0.5\nb,2.0\n")
    write_json(root / METRIC, {"accuracy": 0.25, "label": "x"})
    write_json(root / "reports/metrics/verdicts.json", verdicts("yes"))
    write_json(root / "dvc.lock", {"stages": LOCK})
    write_json(root / "dvc.yaml", {"stages": {"compare": {}, "report": {}}})
    write_text(root / "requirements.lock", "pandas==0.1\nnumpy==0.1 ; python_version < '3'\n")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "The study"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(
            ["git", *identity, *command], cwd=root, env=environment(tmp_path, HERE), check=True
        )
    return root


def verdicts(first: str) -> dict[str, Any]:
    return {"rq1": {"verdict": first}, "rq2": {"verdict": "yes"}}


def test_equal_bytes(study: Path) -> None:
    result = reproduction(study)
    assert (result.outcome, result.n_same, result.verdicts) == (SAME, 2, True)


def test_last_bits_are_within_the_tolerance(study: Path) -> None:
    write_text(study / TABLE, "run,drift\na,0.50001\nb,2.0\n")
    write_json(study / METRIC, {"accuracy": 0.2501, "label": "x"})
    result = reproduction(study)
    assert (result.outcome, result.first, result.verdicts) == (WITHIN, None, True)
    assert result.worst["table"] == (1, pytest.approx(0.00001 / 2), TABLE, "drift")
    assert result.worst["metric"] == (1, pytest.approx(0.0001), METRIC, "accuracy")
    assert [reason.split(":")[0] for reason in result.reasons] == ["pandas"]


@pytest.mark.parametrize(
    ("path", "content", "stage"),
    [
        (TABLE, "run,drift\na,0.5\nb,2.5\n", "compare"),
        (TABLE, "run,drift\na,0.5\nc,2.0\n", "compare"),
        (TABLE, "run,drift\na,0.5\n", "compare"),
        (TABLE, "run,drift\na,0.5\nb,\n", "compare"),
        (METRIC, '{"accuracy": 0.26, "label": "x"}', "report"),
        (METRIC, '{"accuracy": 0.25, "label": "y"}', "report"),
        (METRIC, '{"accuracy": 0.25}', "report"),
    ],
)
def test_a_doctored_result_is_told_by_its_stage(
    path: str, content: str, stage: str, study: Path
) -> None:
    write_text(study / path, content)
    result = reproduction(study)
    assert (result.outcome, result.first) == (DIFFERENT, stage)


def test_another_verdict_is_another_result(study: Path) -> None:
    write_json(study / "reports/metrics/verdicts.json", verdicts("no"))
    result = reproduction(study)
    assert (result.outcome, result.verdicts) == (DIFFERENT, False)


def test_other_params_are_named(study: Path) -> None:
    other = LOCK["compare"] | {"params": {"params.yaml": {"compare": {"fdr": 0.1}}}}
    write_json(study / "dvc.lock", {"stages": LOCK | {"compare": other}})
    assert reproduction(study).changed == ["params.yaml: compare.fdr: 0.05 -> 0.1"]


def test_a_study_that_is_not_committed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="committed"):
        reproduction(tmp_path)


def test_tensors_differ_by_a_share_of_their_length(tmp_path: Path) -> None:
    for name, last in (("a", 4.0), ("b", 4.5)):
        save_file({"x": np.array([3.0, last]), "y": np.ones(2)}, tmp_path / name)
    parts = dict(reproduced._tensors(tmp_path / "a", tmp_path / "b"))
    assert parts == {"x": pytest.approx(0.1), "y": 0}


def test_graphs_that_differ_are_counted(tiny_study: Path) -> None:
    one, other = (
        tiny_study / f"data/attributions/{run}/050.safetensors"
        for run in ("mapped-0", "rotated-1-0")
    )
    result = Reproduction()
    assert max(share for _, share in reproduced._circuits(one, one, result.moved)) == 0
    assert result.moved["nodes"] > 0
    assert result.moved["nodes in one"] == result.moved["edges in one"] == 0
    assert max(share for _, share in reproduced._circuits(one, other, result.moved)) > 0
    assert result.moved["edges in one"] > 0


@pytest.mark.slow
def test_a_run_ends_with_the_comparison(tiny_clone: Clone, tmp_path: Path) -> None:
    study = tiny_clone.copy(tmp_path)
    study.run("dvc", "repro")
    assert "reproduced: the same bytes" in study.run("circuitdrift", "verify", "--reproduced")
    table = study.root / "reports/tables/report/by_word.csv"
    table.write_text(table.read_text().replace("0.", "7.", 1))
    output = study.fail("circuitdrift", "verify", "--reproduced")
    assert "reproduced: different from report on" in output
    assert "git checkout reports dvc.lock" in output

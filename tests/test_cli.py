from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuitdrift.cli import app

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("params.yaml", "data/constraints.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_check_says_what_a_study_would_run(study: Path) -> None:
    result = CliRunner().invoke(app, ["check", "--root", str(study)])
    assert result.exit_code == 0, result.output
    for part in ("gemma-3-270m", "mapped-0", "50 examples, 3 epochs", "025, 050, 075, 100"):
        assert part in result.output


def test_check_refuses_with_the_remedy(study: Path) -> None:
    params = study / "params.yaml"
    params.write_text(params.read_text().replace("n_examples: 50", "n_examples: 100000"))
    result = CliRunner().invoke(app, ["check", "--root", str(study)])
    assert result.exit_code == 1
    assert "params.yaml: dataset.n_examples: " in result.output
    assert "(got 100000)" in result.output


def test_help_names_the_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "check" in result.output

"""`make verify-reproduction` on a pipeline of two stages, steady or not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import verify_reproduction
from reliability.clones import Clone, environment
from reliability.difference import Difference
from reliability.reproduction_report import put_rows, rows_of
from reliability.studies import Comparison, Located
from reliability.tolerance import Allowed
from reliability.variations import reversed_order

PIPELINE = """\
stages:
  train:
    matrix:
      run: [a, b]
    cmd: python make.py train ${item.run}
    params: [compute]
    deps: [make.py]
    outs: ["models/${item.run}.safetensors"]
  report:
    cmd: python make.py report
    deps: [make.py, models/a.safetensors, models/b.safetensors]
    outs:
      - reports/table.csv:
          cache: false
"""
# The order of a set of text, and so the sum of numbers in it, is another with every hash seed.
CODE = """\
import sys
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file, save_file

stage, *names = sys.argv[1:]
for name in names:
    words = [word for word in {order}(f"word {{i}}" for i in range(50))]
    values = np.array([float(word[5:]) for word in words], dtype=np.float32)
    Path("models").mkdir(exist_ok=True)
    save_file({{"weights": values}}, f"models/{{name}}.safetensors")
if stage == "report":
    Path("reports").mkdir(exist_ok=True)
    first = [load_file(f"models/{{name}}.safetensors")["weights"][0] for name in "ab"]
    Path("reports/table.csv").write_text(f"run,first\\na,{{first[0]}}\\nb,{{first[1]}}\\n")
"""

BY_THREADS = '(lambda words: sorted(words, reverse="threads: 2" in open("params.yaml").read()))'


def study(root: Path, order: str) -> Path:
    """A finished study whose weights stand in the order that ``order`` gives them."""
    root.mkdir()
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "params.yaml").write_text("compute:\n  threads: 1\n")
    (root / "make.py").write_text(CODE.format(order=order))
    (root / ".gitignore").write_text("/models\n")
    clone = Clone(root, environment(root.parent))
    clone.do("git", "init", "--quiet")
    clone.do("dvc", "init", "--quiet")
    clone.do("dvc", "repro")
    return root


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study(tmp_path_factory.mktemp("steady") / "root", "sorted")


def verify(root: Path, reports: Path, *arguments: str) -> tuple[int, pd.DataFrame]:
    status = verify_reproduction.main(["--root", str(root), "--reports", str(reports), *arguments])
    return status, pd.read_csv(reports / "reproduction.csv", keep_default_na=False)


ARTIFACTS = ["models/a.safetensors", "models/b.safetensors", "reports/table.csv"]


def test_a_steady_study_comes_out_the_same_however_it_is_run(
    steady: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, rows = verify(steady, tmp_path / "reports")
    assert status == 0, capsys.readouterr().out
    assert set(rows["outcome"]) == {"identical"}
    of_each = {name: sorted(group["artifact"]) for name, group in rows.groupby("variation")}
    assert of_each == {
        "committed": ["dvc.lock", "reports/table.csv"],
        "elsewhere": ["dvc.lock", *ARTIFACTS],
        "reversed": ["dvc.lock", *ARTIFACTS],
        "threads": ARTIFACTS,
    }
    assert "4 of 4" in (tmp_path / "reports" / "README.md").read_text()


def test_an_unsteady_study_is_told_by_its_first_artifact_and_tensor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = study(tmp_path / "root", "set")
    arguments = ["--reference", str(root), "--variations", "elsewhere"]
    status, rows = verify(root, tmp_path / "reports", *arguments)
    assert status == 1
    assert "first to differ: models/a.safetensors, tensor weights: " in capsys.readouterr().out
    first = rows[rows["artifact"] == "models/a.safetensors"].iloc[0]
    assert first["outcome"] == "differs"
    assert 0 < float(first["relative"]) <= 1
    assert float(first["absolute"]) >= 1


def test_a_clone_that_is_there_is_taken_up_where_it_stopped(steady: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    arguments = ["--reference", str(steady), "--variations", "reversed", "--work", str(work)]
    verify(steady, tmp_path / "reports", *arguments)
    (made,) = work.rglob("models/a.safetensors")
    before = made.stat().st_mtime_ns
    assert verify(steady, tmp_path / "reports", *arguments)[0] == 0
    assert made.stat().st_mtime_ns == before


def test_the_reverse_order_still_runs_what_is_needed_first(steady: Path) -> None:
    assert reversed_order(steady) == ["train@b", "train@a", "report"]


@pytest.mark.parametrize(
    ("difference", "outcome"),
    [
        (Difference("accuracy", ".85 | .89", absolute=0.04, relative=0.045), "within tolerance"),
        (Difference("n_recruited", "264 | 250", absolute=14, relative=0.053), "within tolerance"),
        (Difference("accuracy", ".4 | .5", absolute=0.1, relative=0.2), "beyond tolerance"),
        (Difference("verdict", "supported | undecided"), "beyond tolerance"),
    ],
)
def test_a_tolerance_is_for_small_numbers(difference: Difference, outcome: str) -> None:
    tolerance = {"study.json": Allowed(absolute=0.05, relative=0.1)}
    found = [
        Comparison(name, (Located("", difference),)) for name in ("study.json", "table.csv")
    ] + [Comparison("verdicts.json", ())]
    rows = rows_of("tiny", "threads", found, tolerance)
    assert rows["outcome"].tolist() == [outcome, "differs", "identical"]
    assert rows_of("tiny", "elsewhere", found)["outcome"].tolist()[0] == "differs"


def test_where_a_tolerance_is_given_other_bits_are_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = study(tmp_path / "root", BY_THREADS)
    arguments = ["--reference", str(root), "--variations", "threads"]
    status, rows = verify(root, tmp_path / "reports", *arguments)
    assert status == 0, capsys.readouterr().out
    assert set(rows["outcome"]) == {"differs"}


def test_rows_of_other_profiles_and_variations_stay(tmp_path: Path) -> None:
    path = tmp_path / "reproduction.csv"
    same = [Comparison("x.csv", ())]
    for profile, variation in (("tiny", "threads"), ("default", "threads"), ("tiny", "reversed")):
        put_rows(path, rows_of(profile, variation, same))
    again = put_rows(path, rows_of("tiny", "threads", [Comparison("y.csv", ())]))
    assert list(zip(again["profile"], again["variation"], again["artifact"], strict=True)) == [
        ("default", "threads", "x.csv"),
        ("tiny", "reversed", "x.csv"),
        ("tiny", "threads", "y.csv"),
    ]


def test_a_stage_that_fails_is_told_in_its_own_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = study(tmp_path / "root", "sorted")
    (root / "make.py").write_text("raise SystemExit('no disk')")
    reports = tmp_path / "reports"
    assert verify_reproduction.main(["--root", str(root), "--reports", str(reports)]) == 1
    assert "no disk" in capsys.readouterr().out
    assert not reports.exists()

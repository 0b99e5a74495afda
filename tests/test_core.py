"""Files written whole and the same bytes every time; names of runs and checkpoints."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from circuitdrift.core.files import (
    read_json,
    read_jsonl,
    remove_other_runs,
    replacing,
    write_json,
    write_jsonl,
    write_table,
    write_text,
)
from circuitdrift.core.study import Run, checkpoint_name


def names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


@pytest.mark.parametrize("as_directory", [False, True])
def test_an_interrupted_writer_leaves_what_was_there(tmp_path: Path, as_directory: bool) -> None:
    target = tmp_path / "a"
    target.write_text("before")

    def write_half() -> None:
        with replacing(target) as partial:
            if as_directory:
                partial.mkdir()
            (partial / "model" if as_directory else partial).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert target.read_text() == "before"
    assert names(tmp_path) == ["a"]


def test_a_directory_replaces_the_old_one_with_all_its_files(tmp_path: Path) -> None:
    target = tmp_path / "models" / "checkpoints"
    target.mkdir(parents=True)
    (target / "old").write_text("old")
    with replacing(target) as partial:
        partial.mkdir()
        (partial / "new").write_text("new")
        assert (target / "old").exists()
    assert names(tmp_path) == ["models", "models/checkpoints", "models/checkpoints/new"]


def test_json_has_the_same_bytes_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, "é"]})
    write_json(tmp_path / "b.json", {"a": [1.5, "é"], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [1.5, "é"], "b": 1}


def test_json_lines_read_back_as_written(tmp_path: Path) -> None:
    records = [{"text": 'a "blarf" mood\nhe\u2028re', "word": None}, {"text": "é", "word": "b"}]
    write_jsonl(tmp_path / "a.jsonl", records)
    assert read_jsonl(tmp_path / "a.jsonl") == records
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 2


def test_a_table_keeps_float32_and_lines_end_the_same_everywhere(tmp_path: Path) -> None:
    values = pd.Series([1 / 3, 1e-9, 123456.789], dtype="float32")
    write_table(tmp_path / "a.csv", pd.DataFrame({"x": values, "name": ["a", "b,c", ""]}))
    back = pd.read_csv(tmp_path / "a.csv", dtype={"x": "float32"}, keep_default_na=False)
    assert back["x"].equals(values)
    assert back["name"].tolist() == ["a", "b,c", ""]
    assert b"\r" not in (tmp_path / "a.csv").read_bytes()
    write_text(tmp_path / "a.md", "é\nb\n")
    assert (tmp_path / "a.md").read_bytes() == "é\nb\n".encode()


def test_only_runs_that_the_study_lost_are_removed(tmp_path: Path) -> None:
    for name in ("base", "mapped-0", "mapped-1", "shuffled-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "025.safetensors").touch()
    (tmp_path / ".gitignore").touch()
    remove_other_runs(tmp_path, [Run("mapped", 0)])
    assert {path.name for path in tmp_path.iterdir()} == {"base", "mapped-0", ".gitignore"}


def test_a_checkpoint_is_named_by_its_percentage_and_a_run_by_its_parts() -> None:
    assert [checkpoint_name(part) for part in (0.01, 0.25, 1 / 3, 1.0)] == [
        *("001", "025", "033", "100")
    ]
    for run in (Run("shuffled", 12), Run("rotated-1", 0)):
        assert Run.parse(run.name) == run


@pytest.mark.parametrize("name", ["mapped", "mapped-", "-0", "mapped-x", "mapped/0"])
def test_what_names_no_run_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="<condition>-<seed>"):
        Run.parse(name)

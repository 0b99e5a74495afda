from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from circuitdrift.artifacts import (
    read_json,
    read_jsonl,
    replacing,
    write_json,
    write_jsonl,
    write_table,
    write_text,
)


class InterruptedWritingError(Exception):
    pass


def write_half_a_file(target: Path) -> None:
    with replacing(target) as partial:
        partial.write_text("half")
        raise InterruptedWritingError


def write_half_a_directory(target: Path) -> None:
    with replacing(target) as partial:
        partial.mkdir()
        (partial / "model").write_text("half")
        raise InterruptedWritingError


def names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


def test_a_file_appears_whole_and_its_folder_with_it(tmp_path: Path) -> None:
    with replacing(tmp_path / "tables" / "a.csv") as partial:
        partial.write_text("1")
        assert not (tmp_path / "tables" / "a.csv").exists()
    assert names(tmp_path) == ["tables", "tables/a.csv"]


def test_an_interrupted_writer_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(InterruptedWritingError):
        write_half_a_file(target)
    assert target.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


def test_an_interrupted_directory_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InterruptedWritingError):
        write_half_a_directory(tmp_path / "base")
    assert names(tmp_path) == []


def test_a_directory_replaces_the_old_one_with_all_its_files(tmp_path: Path) -> None:
    target = tmp_path / "checkpoints"
    target.mkdir()
    (target / "old").write_text("old")
    with replacing(target) as partial:
        partial.mkdir()
        (partial / "new").write_text("new")
    assert names(tmp_path) == ["checkpoints", "checkpoints/new"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass


def test_json_has_the_same_bytes_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, "é"]})
    write_json(tmp_path / "b.json", {"a": [1.5, "é"], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [1.5, "é"], "b": 1}
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_lines_read_back_as_written(tmp_path: Path) -> None:
    records = [{"text": 'a "blarf" mood\nhere', "word": None}, {"text": "é", "word": "b"}]
    write_jsonl(tmp_path / "a.jsonl", records)
    assert read_jsonl(tmp_path / "a.jsonl") == records
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 2


def test_a_table_keeps_float32_and_ends_its_lines_the_same_everywhere(tmp_path: Path) -> None:
    values = pd.Series([1 / 3, 1e-9, 123456.789], dtype="float32")
    write_table(tmp_path / "a.csv", pd.DataFrame({"x": values, "name": ["a", "b,c", ""]}))
    back = pd.read_csv(tmp_path / "a.csv", dtype={"x": "float32"}, keep_default_na=False)
    assert back["x"].equals(values)
    assert back["name"].tolist() == ["a", "b,c", ""]
    assert b"\r" not in (tmp_path / "a.csv").read_bytes()


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.md", "é\nb\n")
    assert (tmp_path / "a.md").read_bytes() == "é\nb\n".encode()

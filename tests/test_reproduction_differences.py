"""Where two files differ, and by how much, on files made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imsave
from reliability.difference import Difference
from reliability.differences import file_differences
from reliability.studies import Located, artifact_differences, compare_locks, compare_studies
from safetensors.torch import save_file

from circuit_samples import circuit
from circuitdrift.circuit_files import save_circuits


def differences(tmp_path: Path, name: str, a: bytes | str, b: bytes | str) -> list[Difference]:
    """Those of two files of one name with these contents."""
    for side, content in (("a", a), ("b", b)):
        (tmp_path / side).mkdir(exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / side / name).write_bytes(data)
    return file_differences(tmp_path / "a" / name, tmp_path / "b" / name)


def of_tensors(tmp_path: Path, a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> str:
    for side, tensors in (("a", a), ("b", b)):
        save_file(tensors, tmp_path / f"{side}.safetensors")
    found = file_differences(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    return "; ".join(f"{each.part}: {each.detail}" for each in found)


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.safetensors", "x.png", "x.bin"])
def test_equal_bytes_are_no_difference(tmp_path: Path, name: str) -> None:
    assert differences(tmp_path, name, b"as it is", b"as it is") == []


def test_a_tensors_largest_difference_is_absolute_and_relative(tmp_path: Path) -> None:
    save_file({"A": torch.tensor([1.0, -4.0]), "B": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"A": torch.tensor([1.5, -3.0]), "B": torch.ones(2)}, tmp_path / "b.safetensors")
    found = file_differences(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found == [Difference("tensor A", "2 of 2 numbers", absolute=1.0, relative=0.25)]


def test_tensors_of_other_names_shapes_and_types_are_named(tmp_path: Path) -> None:
    a = {"only": torch.ones(1), "shape": torch.ones(2), "type": torch.ones(2)}
    b = {"shape": torch.ones(3), "type": torch.ones(2).half()}
    assert of_tensors(tmp_path, a, b) == (
        "tensor only: only in the first; "
        "tensor shape: torch.float32 [2] | torch.float32 [3]; "
        "tensor type: torch.float32 [2] | torch.float16 [2]"
    )


def test_nan_is_equal_to_nan_and_to_nothing_else(tmp_path: Path) -> None:
    nan = float("nan")
    a = {"A": torch.tensor([nan, 1.0]), "B": torch.tensor([nan])}
    b = {"A": torch.tensor([nan, 2.0]), "B": torch.tensor([0.0])}
    assert of_tensors(tmp_path, a, b) == "tensor A: 1 of 2 numbers; tensor B: 1 of 1 numbers"


def test_the_same_tensors_in_other_bytes_are_a_difference(tmp_path: Path) -> None:
    a = {"A": torch.tensor([0.0])}
    b = {"A": torch.tensor([-0.0])}
    assert "same content, other bytes" in of_tensors(tmp_path, a, b)


def test_metadata_is_compared_by_key(tmp_path: Path) -> None:
    for side, step in (("a", 1), ("b", 2)):
        metadata = {"about": json.dumps({"step": step})}
        save_file({"A": torch.ones(1)}, tmp_path / f"{side}.safetensors", metadata=metadata)
    found = file_differences(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found == [Difference("metadata.about.step", "1 | 2", absolute=1, relative=0.5)]


def test_circuits_are_compared_by_prompt(tmp_path: Path) -> None:
    save_circuits(tmp_path / "a.safetensors", [circuit("one", seed=0), circuit("two", seed=1)])
    save_circuits(tmp_path / "b.safetensors", [circuit("one", seed=0), circuit("two", seed=2)])
    found = file_differences(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found[0].part == "prompt two, effects"
    assert found[0].absolute is not None
    assert found[0].absolute > 0


def test_a_table_names_the_first_cell_and_the_largest_difference_of_a_column(
    tmp_path: Path,
) -> None:
    a = "word,drift\nblarf,1.0\nglide,2.0\nflorp,4.0\n"
    b = "word,drift\nblarf,1.0\nglide,2.5\nzephyr,3.0\n"
    assert differences(tmp_path, "x.csv", a, b) == [
        Difference("row 3, column word", "florp | zephyr, 1 of 3 cells"),
        Difference("row 2, column drift", "2.0 | 2.5, 2 of 3 cells", absolute=1.0, relative=0.25),
    ]


def test_a_table_of_other_columns_or_rows_says_so(tmp_path: Path) -> None:
    (header,) = differences(tmp_path, "x.csv", "a,b\n1,2\n", "a,c\n1,2\n")
    assert header.part == "header"
    (rows,) = differences(tmp_path, "x.tsv", "a\tb\n1\t2\n", "a\tb\n1\t2\n3\t4\n")
    assert rows == Difference("rows", "1 | 2")


def test_numbers_written_otherwise_differ_by_nothing_but_differ(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, "x.csv", "a\n0\n", "a\n0.0\n")
    assert (found.part, found.absolute, found.relative) == ("row 1, column a", 0.0, 0.0)


def test_json_is_compared_by_key(tmp_path: Path) -> None:
    a = {"kept": 1, "runs": [{"loss": 2.0}, {"loss": 4.0}], "gone": None, "is": True}
    b = {"kept": 1, "runs": [{"loss": 2.0}, {"loss": 5.0}], "new": 0, "is": 1}
    assert differences(tmp_path, "x.json", json.dumps(a), json.dumps(b)) == [
        Difference("runs[1].loss", "4.0 | 5.0", absolute=1.0, relative=0.2),
        Difference("gone", "only in the first"),
        Difference("is", "True | 1"),
        Difference("new", "only in the second"),
    ]


def test_json_lines_are_compared_by_line(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, "x.jsonl", '{"a": 1}\n{"a": 2}\n', '{"a": 1}\n{"a": 3}\n')
    assert found.part == "line[1].a"


def test_pictures_are_compared_by_pixel(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 3))
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        imsave(tmp_path / side / "x.png", pixels)
        pixels[0, 0] = 1.0
    (found,) = file_differences(tmp_path / "a" / "x.png", tmp_path / "b" / "x.png")
    assert found == Difference("pixels", "1 of 6 differ", absolute=1.0, relative=1.0)


def test_texts_are_compared_by_line(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, "x.md", "one\ntwo\n", "one\nthree\n")
    assert found == Difference("line 2", "two | three")


@pytest.mark.parametrize("name", ["x.json", "x.safetensors", "x.png"])
def test_a_damaged_file_is_a_difference_of_the_file(tmp_path: Path, name: str) -> None:
    (found,) = differences(tmp_path, name, b"\x89PNG damaged", b"\x89PNG otherwise")
    assert found.part == "file"


def test_files_of_other_kinds_are_compared_by_byte(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, "x.bin", b"abc", b"abcd")
    assert found.part == "byte 3"


def test_a_folder_is_compared_by_the_order_of_its_files(tmp_path: Path) -> None:
    for side, files in (
        ("a", {"1.txt": "x", "3/4.txt": "y"}),
        ("b", {"2.txt": "", "3/4.txt": "z"}),
    ):
        for name, text in files.items():
            path = tmp_path / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    assert artifact_differences(tmp_path / "a", tmp_path / "b") == [
        Located("1.txt", Difference("file", "only in the first")),
        Located("2.txt", Difference("file", "only in the second")),
        Located("3/4.txt", Difference("line 1", "y | z")),
    ]


LOCK = "schema: '2.0'\nstages:\n"
ONE = "  one:\n    cmd: run one\n    outs:\n    - path: one.txt\n      md5: {md5}\n"
TWO = "  two:\n    cmd: run two\n    outs:\n    - path: two.txt\n      md5: 0\n"


def write_study(root: Path, lock: str, **files: str) -> Path:
    root.mkdir()
    (root / "dvc.lock").write_text(LOCK + lock)
    for name, text in files.items():
        (root / f"{name}.txt").write_text(text)
    return root


def test_studies_are_compared_by_artifact_in_the_order_of_the_stages(tmp_path: Path) -> None:
    one, two = ONE.format(md5="1"), ONE.format(md5="2")
    a = write_study(tmp_path / "a", TWO + one, one="x", two="y")
    b = write_study(tmp_path / "b", TWO + two, one="z", two="y")
    found = compare_studies(a, b)
    assert [(each.artifact, each.identical) for each in found] == [
        ("two.txt", True),
        ("one.txt", False),
    ]
    assert str(found[1].located[0]) == "line 1: x | z"
    lock = compare_locks(a, b, in_order=True)
    assert str(lock.located[0]) == "stages.one.outs[0].md5: 1 | 2"


def test_an_artifact_that_neither_study_has_is_a_difference(tmp_path: Path) -> None:
    studies = [write_study(tmp_path / side, ONE.format(md5="1")) for side in "ab"]
    (found,) = compare_studies(*studies)
    assert str(found.located[0]) == "artifact: in neither"


def test_the_order_of_the_stages_counts_where_it_should(tmp_path: Path) -> None:
    one = ONE.format(md5="1")
    a, b = write_study(tmp_path / "a", one + TWO), write_study(tmp_path / "b", TWO + one)
    assert compare_locks(a, b, in_order=False).identical
    assert not compare_locks(a, b, in_order=True).identical

"""What `make verify-reproduction` says of files and studies that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reproduction import compare, difference
from safetensors.numpy import save_file

from circuitdrift.core.files import write_json


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    else:
        save_file({name: np.array(values) for name, values in content.items()}, path)
    return path


@pytest.mark.parametrize(
    ("name", "one", "other", "found"),
    [
        ("a.safetensors", {"a": [1.0], "b": [4, 8]}, {"a": [1.0], "b": [3, 8]}, ("b", 1, 1 / 8)),
        ("a.csv", "x,y\n1,2\n1,2\n", "x,y\n1,2\n1,4\n", ("row 2, y: 2 | 4", 2, 1 / 2)),
        (
            "a.json",
            '{\n"x": 1,\n"y": 2\n}',
            '{\n"x": 1,\n"y": 3\n}',
            ('line 3 "y": 2 | 3', 1, 1 / 3),
        ),
        ("a.md", "one\ntwo", "one\nthree", ("line 2: two | three",)),
        ("a.md", "one", "one\ntwo", ("line 2: none | two",)),
    ],
)
def test_the_first_part_that_differs_is_named(
    name: str, one: Any, other: Any, found: tuple[str | float, ...], tmp_path: Path
) -> None:
    a, b = write(tmp_path / "one" / name, one), write(tmp_path / "other" / name, other)
    assert difference(a, a) == {}
    assert tuple(difference(a, b).values()) == found


def test_a_stage_that_came_out_otherwise_is_named(tmp_path: Path) -> None:
    for root, md5, text in (("one", "a", "x\n1\n"), ("other", "b", "x\n2\n")):
        same = {"cmd": "make", "outs": [{"path": "same.csv", "md5": "s"}]}
        varied = {"cmd": "vary", "outs": [{"path": "out", "md5": md5}]}
        write(tmp_path / root / "out/table.csv", text)
        write_json(tmp_path / root / "dvc.lock", {"stages": {"make": same, "vary": varied}})
    rows = {row["artifact"]: row for row in compare(tmp_path / "one", tmp_path / "other", False)}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "dvc.lock": "differs",
        "same.csv": "identical",
        "out/table.csv": "differs",
    }
    assert rows["dvc.lock"]["first"] == "vary"
    assert rows["out/table.csv"]["first"] == "row 1, x: 1 | 2"

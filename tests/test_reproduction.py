"""What `make verify-reproduction` says of files and studies that differ."""

from __future__ import annotations

from pathlib import Path

from reproduction import compare

from circuitdrift.core.files import write_json, write_text


def test_a_stage_that_came_out_otherwise_is_named(tmp_path: Path) -> None:
    for root, md5, text in (("one", "a", "x\n1\n"), ("other", "b", "x\n2\n")):
        same = {"cmd": "make", "outs": [{"path": "same.csv", "md5": "s"}]}
        varied = {"cmd": "vary", "outs": [{"path": "out", "md5": md5}]}
        write_text(tmp_path / root / "out/table.csv", text)
        write_json(tmp_path / root / "dvc.lock", {"stages": {"make": same, "vary": varied}})
    rows = {row["artifact"]: row for row in compare(tmp_path / "one", tmp_path / "other", False)}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "dvc.lock": "differs",
        "same.csv": "identical",
        "out/table.csv": "differs",
    }
    assert rows["dvc.lock"]["part"] == "vary"
    assert (rows["out/table.csv"]["part"], rows["out/table.csv"]["share"]) == ("x", 0.5)

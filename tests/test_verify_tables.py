"""Tables: whole rows, named columns, one header for all of a kind."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from circuitdrift.integrity.tables import Table, read_shape, table_problems, unlike_the_others


def shape_of(text: str, path: Path) -> Table:
    path.write_text(text, encoding="utf-8", newline="")
    return read_shape(path)


def test_a_table_is_read_for_its_shape(tmp_path: Path) -> None:
    assert shape_of('a,b\n1,"2,\n3"\n4,5\n', tmp_path / "a.csv") == Table(("a", "b"), 0)
    assert shape_of("a,b\n1,2\n3\n", tmp_path / "a.csv") == Table(("a", "b"), 3)
    assert shape_of("a\tb\n1\t2,3\n", tmp_path / "a.tsv") == Table(("a", "b"), 0)
    with pytest.raises(ValueError, match="empty"):
        shape_of("", tmp_path / "a.csv")
    with pytest.raises(csv.Error):
        shape_of('a,b\n"1,2\n', tmp_path / "a.csv")


def test_a_table_has_whole_rows_and_names_for_its_columns() -> None:
    path = Path("reports/tables/some.csv")
    assert list(table_problems(path, Table(("a", "b"), 0))) == []
    assert "line 3" in next(table_problems(path, Table(("a", "b"), 3)))
    for header in (("a", "a"), ("a", "")):
        assert "without a name, or two of one name" in next(table_problems(path, Table(header, 0)))


def test_tables_of_one_kind_have_one_header() -> None:
    tables = {
        "x/mapped-0.csv": ("x/*.csv", Table(("a",), 0)),
        "x/shuffled-0.csv": ("x/*.csv", Table(("b",), 0)),
        "y.csv": ("y.csv", Table(("b",), 0)),
    }
    assert list(unlike_the_others(tables)) == [
        ("x/shuffled-0.csv", "other columns than x/mapped-0.csv: b")
    ]

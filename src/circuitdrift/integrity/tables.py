"""Whether a table parses, and has the columns that the code which writes it names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from circuitdrift import paths
from circuitdrift.claims import COLUMNS as CLAIMS
from circuitdrift.evaluation import Evaluated
from circuitdrift.measures import MEASURES
from circuitdrift.recruited_table import COLUMNS as RECRUITED
from circuitdrift.summaries.mapping import COLUMNS as MAPPING
from circuitdrift.summaries.study import BASELINE_COLUMNS

EVALUATION = (
    *(field.name for field in fields(Evaluated)),
    *("prompt", "role", "type", "word", *MEASURES),
)
SUFFIXES = {".csv": ",", ".tsv": "\t"}

_COLUMNS = {
    paths.BASELINES_TABLE: BASELINE_COLUMNS,
    paths.CLAIMS_TABLE: CLAIMS,
    paths.MAPPING_TABLE: MAPPING,
    paths.RECRUITED_TABLE: RECRUITED,
}


@dataclass(frozen=True)
class Table:
    """A table that parses.

    Attributes:
        header: its columns.
        ragged: the first line, counted from 1, that has another number of cells; 0 if none.
    """

    header: tuple[str, ...]
    ragged: int


def read_shape(path: Path) -> Table:
    """Read a table for its shape alone.

    Raises:
        ValueError: if it is empty or no text.
        csv.Error: if it does not parse.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter=SUFFIXES[path.suffix], strict=True)
        header = tuple(next(rows, ()))
        if not header:
            raise ValueError("the table is empty")
        ragged = (rows.line_num for row in rows if len(row) != len(header))
        return Table(header, next(ragged, 0))


def columns_of(path: Path) -> Sequence[str] | None:
    """The columns that the code names for the table at ``path``; None where it names none."""
    if path.parent == paths.EVALUATION_TABLES:
        return EVALUATION
    return _COLUMNS.get(path)


def table_problems(path: Path, table: Table) -> Iterator[str]:
    """What is wrong with a table that parses.

    Args:
        path: relative to the study's root.
    """
    if table.ragged:
        yield f"line {table.ragged} has another number of cells than the header"
    if "" in table.header or len(set(table.header)) < len(table.header):
        yield f"columns without a name, or two of one name: {', '.join(table.header)}"
    named = columns_of(path)
    if named is not None and tuple(named) != table.header:
        yield f"columns {', '.join(table.header)}, where the code writes {', '.join(named)}"


def unlike_the_others(tables: Mapping[str, tuple[str, Table]]) -> Iterator[tuple[str, str]]:
    """Tables whose columns are not those of the first table of their kind.

    Args:
        tables: by path, each with the name of its kind: one stage's tables of several runs.
    """
    first: dict[str, tuple[str, Table]] = {}
    for path, (kind, table) in sorted(tables.items()):
        example, expected = first.setdefault(kind, (path, table))
        if table.header != expected.header:
            yield path, f"other columns than {example}: {', '.join(table.header)}"

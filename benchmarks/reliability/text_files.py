"""Where two tables, trees or texts differ: cell, key or line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reliability.difference import Difference, share


def tables(a: Path, b: Path, delimiter: str = ",") -> Iterator[Difference]:
    """By column: the first cell that differs, and the largest difference of numbers."""
    both = [_rows(path, delimiter) for path in (a, b)]
    rows_a, rows_b = both
    if rows_a[:1] != rows_b[:1]:
        yield Difference("header", f"{rows_a[:1]} | {rows_b[:1]}")
        return
    if len(rows_a) != len(rows_b):
        yield Difference("rows", f"{len(rows_a) - 1} | {len(rows_b) - 1}")
    for index, name in enumerate(rows_a[0] if rows_a else []):
        columns = [[row[index] if index < len(row) else "" for row in rows[1:]] for rows in both]
        yield from _column(name, *columns)


def _rows(path: Path, delimiter: str) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def _column(name: str, a: list[str], b: list[str]) -> Iterator[Difference]:
    differing = [index for index, (x, y) in enumerate(zip(a, b)) if x != y]  # noqa: B905
    if differing:
        part = f"row {differing[0] + 1}, column {name}"
        detail = f"{a[differing[0]]} | {b[differing[0]]}, {len(differing)} of {len(a)} cells"
        apart = [abs(_number(a[index]) - _number(b[index])) for index in differing]
        if any(map(math.isnan, apart)):
            yield Difference(part, detail)
        else:
            magnitudes = (abs(_number(cell)) for cell in (*a, *b))
            largest = max(value for value in magnitudes if not math.isnan(value))
            yield Difference(part, detail, max(apart), share(max(apart), largest))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def json_trees(a: Path, b: Path) -> Iterator[Difference]:
    yield from tree_differences(*(json.loads(path.read_bytes()) for path in (a, b)))


def json_lines(a: Path, b: Path) -> Iterator[Difference]:
    one, other = (
        [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]] for path in (a, b)
    )
    yield from tree_differences(one, other, "line")


def yaml_trees(a: Path, b: Path) -> Iterator[Difference]:
    yield from tree_differences(*(YAML(typ="safe", pure=True).load(path) for path in (a, b)))


def tree_differences(a: Any, b: Any, at: str = "") -> Iterator[Difference]:
    """Every leaf in which two trees of mappings, lists and scalars differ, by its key."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            where = f"{at}.{key}" if at else str(key)
            if key not in a or key not in b:
                yield Difference(where, f"only in the {'second' if key in b else 'first'}")
            else:
                yield from tree_differences(a[key], b[key], where)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from tree_differences(x, y, f"{at}[{index}]")
    elif a != b or type(a) is not type(b):
        yield _leaf(at or "value", a, b)


def _leaf(part: str, a: Any, b: Any) -> Difference:
    detail = " | ".join(_short(value) for value in (a, b))
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b)):
        return Difference(part, detail, abs(a - b), share(abs(a - b), a, b))
    return Difference(part, detail)


def _short(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, list | dict) else str(value)


def lines(a: Path, b: Path) -> Iterator[Difference]:
    texts = [path.read_text(encoding="utf-8").split("\n") for path in (a, b)]
    for number, (x, y) in enumerate(zip_longest(*texts, fillvalue="(none)"), start=1):
        if x != y:
            yield Difference(f"line {number}", f"{x} | {y}")

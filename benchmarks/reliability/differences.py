"""Where two files that should be equal differ, and by how much. Reads; writes nothing."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
from matplotlib.image import imread
from ruamel.yaml.error import YAMLError
from safetensors import SafetensorError

from reliability.difference import Difference
from reliability.tensor_files import tensor_files
from reliability.text_files import json_lines, json_trees, lines, tables, yaml_trees

# What readers say of a damaged file; Pillow calls a broken PNG a SyntaxError.
_UNREADABLE = (SafetensorError, ValueError, YAMLError, OSError, SyntaxError, csv.Error)


def file_differences(a: Path, b: Path) -> list[Difference]:
    """Every part in which two files differ, in the files' order; none if their bytes are equal.

    A file that cannot be read as what its name says is one difference.
    """
    bytes_a, bytes_b = a.read_bytes(), b.read_bytes()
    if bytes_a == bytes_b:
        return []
    read = _READERS.get(a.suffix)
    try:
        found = list(read(a, b)) if read else []
    except _UNREADABLE as error:
        found = [Difference("file", f"not to be read as {a.suffix}: {error}")]
    return found or [_first_byte(bytes_a, bytes_b)]


def _first_byte(a: bytes, b: bytes) -> Difference:
    pairs = zip_longest(a, b)
    index = next(index for index, (x, y) in enumerate(pairs) if x != y)
    return Difference(f"byte {index}", f"same content, other bytes: {len(a)} and {len(b)} of them")


def _picture(a: Path, b: Path) -> Iterator[Difference]:
    pixels_a, pixels_b = imread(a), imread(b)
    if pixels_a.shape != pixels_b.shape:
        yield Difference("size", f"{pixels_a.shape} | {pixels_b.shape}")
    elif (differing := int((pixels_a != pixels_b).any(-1).sum())) > 0:
        largest = float(np.abs(pixels_a - pixels_b).max())
        yield Difference(
            "pixels", f"{differing} of {pixels_a[..., 0].size} differ", largest, largest
        )


_READERS: dict[str, Callable[[Path, Path], Iterator[Difference]]] = {
    ".safetensors": tensor_files,
    ".csv": tables,
    ".tsv": lambda a, b: tables(a, b, delimiter="\t"),
    ".json": json_trees,
    ".jsonl": json_lines,
    ".lock": yaml_trees,
    ".yaml": yaml_trees,
    ".png": _picture,
    ".md": lines,
    ".txt": lines,
}

"""Files that would run code or mislead, if they were read as they ask to be."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MARKER = "the-payload-ran"


class Payload:
    """Unpickled, it makes a file of the name MARKER in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.marker = directory / MARKER

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def pickled_payload(directory: Path) -> bytes:
    return pickle.dumps(Payload(directory))


def payload_ran(directory: Path) -> bool:
    return (directory / MARKER).exists()


def safetensors_with(
    header: Mapping[str, Any], data: bytes = b"", claimed: int | None = None
) -> bytes:
    """A safetensors file whose header says ``header``.

    Args:
        claimed: the header's length as the file states it, if not the true one.
    """
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


def tensor(start: int, end: int, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}


LYING = {
    "header longer than the file": safetensors_with({}, claimed=2**40),
    "tensor beyond the file": safetensors_with({"a": tensor(0, 4096, (1024,))}, b"\0" * 16),
    "overlapping tensors": safetensors_with(
        {"a": tensor(0, 8, (2,)), "b": tensor(4, 12, (2,))}, b"\0" * 12
    ),
    "shape larger than its bytes": safetensors_with({"a": tensor(0, 8, (2**40,))}, b"\0" * 8),
    "header that is no JSON": struct.pack("<Q", 4) + b"nono",
}

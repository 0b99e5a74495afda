"""A small DVC project of two stages that copy files, run by DVC in this process."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dvc.logger import set_loggers_level
from dvc.repo import Repo
from safetensors.numpy import save

Files = Mapping[str, bytes]
LORA = "base_model.model.layers.0.q_proj"
WEIGHTS = {f"{LORA}.lora_A.weight": np.ones((2, 8)), f"{LORA}.lora_B.weight": np.ones((4, 2))}
MADE = {
    "adapter/adapter_config.json": b'{"r": 2, "target_modules": ["q_proj"]}',
    "adapter/adapter_model.safetensors": save(WEIGHTS),
    "lines.jsonl": b'{"a": 1}\n{"a": 2}\n',
    "table.csv": b"a,b\n1,2\n",
}
PIPELINE = """
stages:
  make:
    cmd: cp -R source made
    deps: [source, code.py]
    params: [size]
    outs: [made]
  tell:
    cmd: cp -R notes figures && cp made/table.csv report.csv
    deps: [made, made/table.csv, notes]
    outs:
      - figures: {cache: false}
      - report.csv: {cache: false}
"""
FILES = {
    "dvc.yaml": PIPELINE.encode(),
    "params.yaml": b"size: 2\n",
    "code.py": b"print('make')\n",
    "notes/one.txt": b"one\n",
    "notes/two.txt": b"two\n",
}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def write(root: Path, files: Files) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@dataclass(frozen=True)
class Study:
    root: Path

    def objects(self) -> list[Path]:
        return [path for path in self.files() if ".dvc/cache/files" in path.as_posix()]

    def object(self, content: bytes, store: str = ".dvc/cache") -> Path:
        return self.root / store / "files/md5" / md5(content)[:2] / md5(content)[2:]

    def files(self) -> list[Path]:
        return [path for path in sorted(self.root.rglob("*")) if path.is_file()]


def make_study(root: Path, made: Files) -> Study:
    """A study after its first run, in which ``made`` was made."""
    write(root, FILES | {f"source/{name}": content for name, content in made.items()})
    before = Path.cwd()
    os.chdir(root)  # DVC looks for a stage's dvc.yaml in the working directory
    try:
        with set_loggers_level(logging.CRITICAL), Repo.init(no_scm=True) as repo:
            Path(".dvcignore").write_text("*.partial-*\n")
            repo.reproduce()
    finally:
        os.chdir(before)
    return Study(root)

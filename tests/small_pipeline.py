"""A DVC study of two stages, written by hand: dvc.lock, cache and all, without running DVC."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from circuitdrift.artifacts import write_json
from circuitdrift.integrity.listings import listing_bytes, listing_oid
from circuitdrift.integrity.pipeline import Study, open_study
from study_clone import environment

PIPELINE = """
stages:
  make:
    cmd: python make.py
    deps: [make.py]
    params: [size]
    outs: [made]
  tell:
    cmd: python tell.py
    deps: [tell.py, made, made/table.csv, notes]
    outs:
      - figures: {cache: false}
      - report.csv: {cache: false}
"""
FILES = {
    "make.py": "print('make')\n",
    "tell.py": "print('tell')\n",
    "notes/one.txt": "one\n",
    "params.yaml": "size: 2\n",
    "dvc.yaml": PIPELINE,
    ".gitignore": "/made\n",
    ".dvcignore": "*.partial-*\n",
    ".dvc/config": "[core]\n    analytics = false\n",
    ".dvc/.gitignore": "/tmp\n/cache\n/config.local\n",
}
MADE = {"deep/lines.jsonl": '{"a": 1}\n', "table.csv": "a,b\n1,2\n"}
FIGURES = {"one.tsv": "x\ty\n1\t2\n", "two.json": "{}\n"}
REPORT = "name,value\nsize,2\n"


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def md5s(files: Mapping[str, str]) -> dict[str, str]:
    return {name: md5(text) for name, text in files.items()}


LOCK = {
    "schema": "2.0",
    "stages": {
        "make": {
            "cmd": "python make.py",
            "deps": [{"path": "make.py", "hash": "md5", "md5": md5(FILES["make.py"])}],
            "params": {"params.yaml": {"size": 2}},
            "outs": [{"path": "made", "hash": "md5", "md5": listing_oid(md5s(MADE))}],
        },
        "tell": {
            "cmd": "python tell.py",
            "deps": [
                {"path": "made", "hash": "md5", "md5": listing_oid(md5s(MADE))},
                {"path": "made/table.csv", "hash": "md5", "md5": md5(MADE["table.csv"])},
                {"path": "notes", "hash": "md5", "md5": listing_oid({"one.txt": md5("one\n")})},
                {"path": "tell.py", "hash": "md5", "md5": md5(FILES["tell.py"])},
            ],
            "outs": [
                {"path": "figures", "hash": "md5", "md5": listing_oid(md5s(FIGURES))},
                {"path": "report.csv", "hash": "md5", "md5": md5(REPORT)},
            ],
        },
    },
}


@dataclass(frozen=True)
class Small:
    """The study on disk, as it was committed."""

    root: Path
    store: Path

    def open(self) -> Study:
        return open_study(self.root)

    def cached(self, oid: str) -> Path:
        return self.root / ".dvc/cache/files/md5" / oid[:2] / oid[2:]

    def stored(self, oid: str) -> Path:
        return self.store / "files/md5" / oid[:2] / oid[2:]

    def bytes_of_all(self) -> dict[str, bytes]:
        """Everything that a repair may write: outputs, cache and remote."""
        places = [self.root / name for name in ("made", "figures", "report.csv", ".dvc/cache")]
        files = [file for place in [*places, self.store] for file in files_at(place)]
        return {str(file): file.read_bytes() for file in files}

    def configure_remote(self) -> None:
        """A remote that is a directory and holds everything."""
        config = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {self.store}\n"
        (self.root / ".dvc/config.local").write_text(config)
        for oid, content in objects().items():
            write(self.stored(oid), content)


def files_at(place: Path) -> list[Path]:
    return [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]


def objects() -> dict[str, bytes]:
    """What DVC keeps of the study, by id."""
    listed = {listing_oid(md5s(MADE)): listing_bytes(md5s(MADE))}
    return {**listed, **{md5(text): text.encode() for text in MADE.values()}}


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def overwrite(path: Path, content: bytes) -> None:
    """Change bytes as a disk may: the file keeps its mode and its time."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def make_small(root: Path, patch: pytest.MonkeyPatch) -> Small:
    """Write the study and commit it; git and DVC know it alone while ``patch`` lasts."""
    for name, value in environment(root.parent).items():
        patch.setenv(name, value)
    small = Small(root, root.parent / "store")
    folders = {"": FILES, "made/": MADE, "figures/": FIGURES, "report": {".csv": REPORT}}
    for folder, files in folders.items():
        for name, text in files.items():
            write(root / f"{folder}{name}", text.encode())
    write_json(root / "dvc.lock", LOCK)
    for oid, content in objects().items():
        write(small.cached(oid), content)
        small.cached(oid).chmod(0o444)
    for command in (
        ("init", "--quiet"),
        ("add", "--all"),
        ("commit", "--quiet", "--message", "All"),
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return small

"""The objects in DVC's cache, and its records of the stages that were run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dvc.utils import dict_sha256
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml

from circuitdrift.integrity.hashing import Track, hash_files
from circuitdrift.integrity.objects import DIRECTORY, Area, Copy, State, state_of
from circuitdrift.integrity.pipeline import Study

_FIRST = re.compile("[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{30}(\.dir)?")
_RUNS = "runs"
_UNHASHED = ["size", "nfiles"]  # what DVC leaves out of a record's name
TEXT = "text:"  # before the id of an object that is hashed as DVC did before its third version


@dataclass(frozen=True)
class CacheFile:
    """A file that is named as an object."""

    path: Path
    oid: str


def cache_path(study: Study, oid: str) -> Path:
    """Where the cache keeps an object."""
    return study.cache / oid[:2] / oid[2:]


def cache_files(study: Study) -> list[CacheFile]:
    """Everything in the cache that is named as an object; of the cache as it was before DVC's third
    version, too, where DVC keeps listings of outputs that it restored."""
    files = [CacheFile(path, oid) for path, oid in _named_as_objects(study.cache)]
    for path, oid in _named_as_objects(study.old_cache):
        files.append(CacheFile(path, oid if oid.endswith(DIRECTORY) else TEXT + oid))
    return files


def _named_as_objects(directory: Path) -> Iterator[tuple[Path, str]]:
    for folder in sorted(directory.glob("[0-9a-f][0-9a-f]")):
        for path in sorted(folder.iterdir()):
            if _FIRST.fullmatch(folder.name) and _REST.fullmatch(path.name):
                yield path, folder.name + path.name


def cache_copies(study: Study, track: Track) -> list[Copy]:
    """The cache's objects, each hashed."""
    files = cache_files(study)
    texts = frozenset(file.path for file in files if file.oid.startswith(TEXT))
    found = hash_files(Area.CACHE.value, (file.path for file in files), track, texts)
    return [
        Copy(
            Area.CACHE,
            study.shown(file.path),
            file.oid,
            *state_of(found[file.path], file.oid.removeprefix(TEXT)),
        )
        for file in files
    ]


def run_record_copies(study: Study) -> list[Copy]:
    """DVC's records of the stages that were run, each held against its name."""
    return [
        Copy(Area.CACHE, study.shown(path), path.name, *_record_state(path))
        for path in sorted((study.old_cache / _RUNS).glob("*/*/*"))
        if not path.name.startswith(".")  # half-written by a DVC that was killed
    ]


def _record_state(path: Path) -> tuple[State, str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        return State.UNREADABLE, error.strerror or str(error)
    if _record_name(content) != path.name:
        return State.CORRUPT, "its contents are not what its name says"
    return State.INTACT, ""


@lru_cache(maxsize=1024)  # ruamel takes a tenth of a second over a long record
def _record_name(content: bytes) -> str:
    """The name that DVC gives to a record of these contents, nothing where they are no record."""
    try:
        record = parse_yaml(content.decode(), "a record")
    except (YAMLFileCorruptedError, UnicodeDecodeError):
        return ""
    return str(dict_sha256(record, exclude=_UNHASHED)) if isinstance(record, dict) else ""

"""``circuitdrift verify``: every byte that DVC keeps hashed anew, and what is damaged brought back.

DVC trusts an object's mode and what it remembers of a file: it puts damaged ones in place. Here the
cache's objects are hashed and opened, and DVC compares the workspace with its memory empty.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from logging import CRITICAL
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress
from safetensors import safe_open

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import read_json

PIECE = 2**22  # bytes read, hashed and looked at together: they stay in the processor's cache
# A float's size in bytes, and its bits that are all set in infinities and NaN alone.
FLOATS = {"F64": (8, 2047 << 52), "F32": (4, 255 << 23), "F16": (2, 31 << 10), "BF16": (2, 0x7F80)}
KEPT = "`circuitdrift verify --repair`, or `dvc repro --force --single-item {}`"
PLAIN = "`git checkout` undoes a change, `dvc repro {}` goes on from it"
Opener = Callable[[Any, Path], object]  # reads a file, given also as its path; raises if it is none
Content = tuple[str, str]  # MD5 of a file, "" where it cannot be read; what is wrong with it


class Finding(NamedTuple):
    """What does not hold at a path, and what to do about it."""

    area: str
    path: str
    wrong: str
    remedy: str


def open_tensors(file: Any, path: Path) -> dict[str, list[int]]:
    """Shapes of the tensors of safetensors, whose floats are all finite."""
    with safe_open(path, framework="np"):
        pass  # refuses a header that lies about shapes and lengths
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        size, exponent = FLOATS.get(entry["dtype"], (0, 0))
        for start in range(begin, end, PIECE):
            piece = file.read(min(PIECE, end - start))
            if size and ((np.frombuffer(piece, f"<u{size}") & exponent) == exponent).any():
                raise ValueError(f"{name} is not finite")
    return {name: entry["shape"] for name, entry in header.items()}


def open_adapter(config: Path, file: Any, path: Path) -> None:
    """An adapter's tensors are those that its configuration asks for."""
    shapes, asked = open_tensors(file, path), read_json(config)
    modules = {name.split(".")[-3] for name in shapes}
    ranks = {shape["lora_B" in name] for name, shape in shapes.items()}  # A [r, in], B [out, r]
    if ranks != {asked["r"]} or modules != set(asked["target_modules"]):
        raise ValueError(f"rank {ranks} at {modules}, which adapter_config.json does not say")


OPENERS: dict[str, Opener] = {
    ".safetensors": open_tensors,
    ".csv": lambda file, _path: list(csv.reader(io.StringIO(file.read().decode()), strict=True)),
    ".json": lambda file, _path: json.loads(file.read()),
    ".jsonl": lambda file, _path: list(map(json.loads, file.read().strip().split(b"\n"))),
}


def read_files(openers: Mapping[Path, Opener | None], progress: Progress) -> dict[Path, Content]:
    """Hash each file, and open it where there is an opener, in one pass."""
    from dvc_data.hashfile.hash import HashStreamFile

    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in openers}
    task = progress.add_task("reading", total=sum(sizes.values()))

    def read(path: Path) -> Content:
        wrong = ""
        try:
            with path.open("rb") as opened:
                file = HashStreamFile(progress.wrap_file(opened, task_id=task))
                try:
                    if opener := openers[path]:
                        opener(file, path)
                except Exception as error:  # each reader has its own for wrong bytes
                    wrong = f"does not open: {type(error).__name__}: {error}"
                while file.read(PIECE):
                    pass
        except OSError as error:
            return "", error.strerror or str(error)
        return file.hash_value, wrong

    paths = sorted(openers, key=lambda path: -sizes[path])  # so that all cores end together
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
        return dict(zip(paths, pool.map(read, paths), strict=True))


def files_of(path: str, oid: str, listing: Path) -> dict[str, str]:
    """Ids of an output and, where its listing is whole, of the files in it, by path."""
    content = listing.read_bytes() if listing.is_file() else b""
    if hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir" != oid:
        return {path: oid}
    files = {f"{path}/{entry['relpath']}": entry["md5"] for entry in json.loads(content)}
    return {path: oid} | {name: md5 for name, md5 in files.items() if ".." not in name.split("/")}


class Survey:
    """What dvc.lock records, and what lies in the cache.

    Attributes:
        kept: id and stage of what DVC keeps, by path: outputs and the files in them.
        objects: what the cache holds, by id.
    """

    def __init__(self, root: Path, repo: Any, progress: Progress) -> None:
        self.root, self.repo, self.progress = root, repo, progress
        self.place = lambda oid: Path(repo.cache.local.oid_to_path(oid))
        self.kept: dict[str, tuple[str, str]] = {}
        for out in [out for stage in repo.index.stages for out in stage.outs]:
            if out.use_cache and (oid := out.hash_info.value):
                files = files_of(out.def_path, oid, self.place(oid))
                self.kept |= {path: (each, out.stage.name) for path, each in files.items()}
        found = Path(repo.cache.local.path).glob("[0-9a-f][0-9a-f]/*")
        places = {f"{place.parent.name}{place.name}": place for place in found}
        openers: dict[str, Opener | None] = dict.fromkeys(places)
        for path, (oid, _) in self.kept.items():
            openers[oid] = OPENERS.get(Path(path).suffix)
            if path.endswith("/adapter_model.safetensors"):
                config = self.kept.get(path.replace("model.safetensors", "config.json"), ("none",))
                openers[oid] = partial(open_adapter, self.place(config[0]))
        contents = read_files({places[oid]: openers[oid] for oid in places}, progress)
        self.objects = {oid: contents[place] for oid, place in places.items()}

    def intact(self, oid: str) -> bool:
        return self.objects.get(oid, ("", ""))[0] == oid[:32] != ""

    def of_objects(self, area: str, objects: Mapping[str, Content]) -> Iterator[Finding]:
        """What is damaged and what is missing among objects, and what does not open."""
        owners = {oid: (path, stage) for path, (oid, stage) in self.kept.items()}
        for oid in sorted(owners.keys() | objects.keys()):
            path, stage = owners.get(oid, ("an older output", "STAGE"))
            md5, wrong = objects.get(oid, ("", "is missing"))
            if md5 != oid[:32]:
                wrong = f"holds other bytes (MD5 {md5})" if md5 else wrong
                yield Finding(area, f"{oid[:2]}/{oid[2:]} ({path})", wrong, KEPT.format(stage))
            elif wrong:
                yield Finding("contents", path, wrong, KEPT.format(stage))

    def of_workspace(self) -> Iterator[Finding]:
        """What DVC finds changed since its stage ran; Repo.status would delete damaged objects."""
        stages, told = self.repo.index.stages, list[str]()
        for name in [stage.name for stage in stages if stage.cmd_changed]:
            yield Finding("workspace", name, "its command changed", f"`dvc repro {name}`")
        outs, deps = ([e for s in stages for e in getattr(s, kind)] for kind in ("outs", "deps"))
        for each in self.progress.track(outs + deps):
            path, changes = f"{each.def_path}/", [*each.workspace_status().values()]
            if changes and not any(path.startswith(one) or one.startswith(path) for one in told):
                told.append(path)
                advice = PLAIN if each.IS_DEPENDENCY or not each.use_cache else KEPT
                wrongs = self.differing(path) or {each.def_path: f"is {changes[0]}"}
                for name, wrong in wrongs.items():
                    yield Finding("workspace", name, wrong, advice.format(each.stage.name))

    def differing(self, folder: str) -> dict[str, str]:
        """What is wrong with which files of a directory that DVC keeps; none for others."""
        wanted = {name: oid for name, (oid, _) in self.kept.items() if name.startswith(folder)}
        files = self.repo.dvcignore.find(self.repo.fs, str(self.root / folder)) if wanted else ()
        contents = read_files(dict.fromkeys(map(Path, files)), self.progress)
        there = {path.relative_to(self.root).as_posix(): md5 for path, (md5, _) in contents.items()}
        return {
            name: f"is {there.get(name, 'missing')}, in dvc.lock {wanted.get(name, 'missing')}"
            for name in sorted(wanted.keys() | there.keys())
            if there.get(name) != wanted.get(name)
        }


def of_remote(survey: Survey) -> Iterator[Finding]:
    """What the remote lacks and what is damaged there, fetched into a scratch folder and hashed."""
    name = survey.repo.config["core"].get("remote", "none")
    with TemporaryDirectory(dir=survey.repo.tmp_dir) as scratch:
        try:
            remote = survey.repo.cloud.get_remote_odb(name)
            remote.fs.info(remote.path)  # raises where nothing was ever pushed
            for oid in survey.progress.track({oid for oid, _ in survey.kept.values()}):
                with suppress(FileNotFoundError):
                    remote.fs.get_file(remote.oid_to_path(oid), f"{scratch}/{oid}")
        except Exception as error:  # each kind of remote raises errors of its own libraries
            wrong = f"cannot be read: {type(error).__name__}: {error}"
            yield Finding("remote", name, wrong, "see docs/remotes.md; `dvc push` fills it")
            return
        files = read_files(dict.fromkeys(Path(scratch).iterdir()), survey.progress)
        found = survey.of_objects("remote", {file.name: each for file, each in files.items()})
        advice = "`dvc push`, when it and its directory's listing (.dir) are removed there"
        yield from (finding._replace(remedy=advice) for finding in found)


def set_aside(survey: Survey, place: Path) -> None:
    """Move what lies at a place into quarantine: it may be the only copy of something."""
    quarantine = Path(survey.repo.tmp_dir) / "quarantine"
    quarantine.mkdir(exist_ok=True)
    aside = shutil.move(place, Path(mkdtemp(dir=quarantine)) / place.name)
    survey.progress.console.out(f"set aside: {place} is now {aside}")


def repair_cache(survey: Survey) -> None:
    """Set damaged objects aside; bring back what is missing from workspace or remote."""
    for oid in [oid for oid in survey.objects if not survey.intact(oid)]:
        set_aside(survey, survey.place(oid))
    repair_workspace(survey)
    for out in [out for stage in survey.repo.index.stages for out in stage.outs if out.use_cache]:
        if not out.workspace_status():
            out.commit(relink=False)
    if not all(survey.place(oid).exists() for oid, _ in survey.kept.values()):
        try:
            survey.repo.fetch()
        except Exception as error:  # each kind of remote raises errors of its own libraries
            survey.progress.console.out(f"dvc fetch: {error}")


def repair_workspace(survey: Survey) -> None:
    """Check out what differs and has an intact object; what lay there is set aside."""
    oids = {path: oid for path, (oid, _) in survey.kept.items() if not oid.endswith(".dir")}
    paths = [finding.path for finding in survey.of_workspace()]
    places = [survey.root / path for path in paths if survey.intact(oids.get(path, ""))]
    for place in filter(os.path.lexists, places):
        set_aside(survey, place)
    if places:
        survey.repo.checkout(targets=[str(place) for place in places])


def verify_study(
    root: Path, *, remote: bool = False, repair: bool = False, progress: Progress | None = None
) -> tuple[dict[str, int], list[Finding]]:
    """How much was checked in each area of a study, and what does not hold."""
    from dvc.cachemgr import CacheManager
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo, lock_repo
    from dvc.rwlock import rwlock
    from dvc_data.hashfile.state import State

    root, progress = root.resolve(), progress or Progress(disable=True)
    try:
        with TemporaryDirectory() as empty, set_loggers_level(CRITICAL), Repo(str(root)) as repo:
            if repo.root_dir != str(root):
                raise DvcException(f"it lies in the DVC repository {repo.root_dir}")
            repo.state = State(str(root), empty, repo.dvcignore)
            repo.cache = CacheManager(repo)
            if repair:
                idle = rwlock(repo.tmp_dir, repo.fs, "verify", [], [str(root)], False)
                with lock_repo(repo), idle:  # no stage is running
                    repair_cache(Survey(root, repo, progress))
                    repair_workspace(Survey(root, repo, progress))
            survey = Survey(root, repo, progress)
            found = [*survey.of_objects("cache", survey.objects), *survey.of_workspace()]
            found += of_remote(survey) if remote else ()
            n_paths = sum(len(stage.outs) + len(stage.deps) for stage in repo.index.stages)
    except (DvcException, OSError, ValueError) as error:
        rule = "the folder of a DVC repository's dvc.yaml, no other DVC command at work there"
        raise InputError(Problem(str(root), str(error), rule, "`dvc status` says more")) from error
    n_opened = sum(path.endswith(tuple(OPENERS)) for path in survey.kept)
    checked = {"cache": len(survey.objects), "workspace": n_paths, "contents": n_opened}
    return checked | ({"remote": len(survey.kept)} if remote else {}), found

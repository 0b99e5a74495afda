"""The outputs in the workspace, file by file."""

from __future__ import annotations

from collections.abc import Mapping

from circuitdrift.integrity.expected import needed_by
from circuitdrift.integrity.hashing import Track, found_at, hash_files
from circuitdrift.integrity.listings import Listing, files_below, listing_oid
from circuitdrift.integrity.objects import DIRECTORY, NOTHING, Area, Copy, Found, md5_part, state_of
from circuitdrift.integrity.pipeline import Study


def found_in_workspace(study: Study, track: Track) -> dict[str, Found]:
    """What lies at and below the paths of the outputs, and of directories that stages depend on,
    by path."""
    made = {out.path for out in study.outs}
    inputs = {path for stage in study.stages for path, _ in stage.deps}
    made |= {path for path in inputs if any(out.startswith(f"{path}/") for out in made)}
    files = {file: study.root / file for path in made for file in study.tracked_below(path)}
    found = hash_files(Area.WORKSPACE.value, files.values(), track)
    return {name: found[path] for name, path in files.items()}


def found_input(study: Study, path: str) -> Found:
    """What lies at an input that git keeps: a file, or a directory whose MD5 is its listing's."""
    if not (study.root / path).is_dir():
        return found_at(study.root / path)
    files = {file: found_at(study.root / file) for file in study.tracked_below(path)}
    if troubles := [found.trouble for found in files.values() if found.md5 is None]:
        return Found(trouble=troubles[0])
    md5s = {file: str(found.md5) for file, found in files.items()}
    return Found(md5_part(listing_oid(files_below(path, md5s))))


def workspace_copies(
    study: Study, found: Mapping[str, Found], listings: Mapping[str, Listing]
) -> list[Copy]:
    """The workspace's copy of each file that dvc.lock and the listings ask for."""
    return [
        Copy(
            Area.WORKSPACE,
            need.name,
            need.oid,
            *state_of(found.get(need.name, NOTHING), need.oid),
        )
        for need in needed_by(study.outs, listings)
        if not need.name.endswith("/")
    ]


def unasked_for(
    study: Study, found: Mapping[str, Found], listings: Mapping[str, Listing]
) -> list[str]:
    """Files below the outputs that no listing names; a directory of unknown listing has none."""
    asked_for = {need.name for need in needed_by(study.outs, listings)}
    unknown = tuple(
        f"{out.path}/"
        for out in study.outs
        if out.oid is None or (out.oid.endswith(DIRECTORY) and out.oid not in listings)
    )
    return sorted(name for name in found.keys() - asked_for if not name.startswith(unknown))

"""The study's artifacts between the workspace, the cache and a remote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.db import HashFileDB

from circuitdrift.errors import InputError, Problem
from circuitdrift.storage.costs import stage_seconds, total_duration
from circuitdrift.storage.outputs import Output, files_of, is_directory, kept_outputs
from circuitdrift.storage.remote import Remote, opened, reaching, writing
from circuitdrift.storage.transfer import fetch, upload

NEVER_MADE = "not in dvc.lock: it was never made"


@dataclass(frozen=True)
class Lack:
    """An output that could not be had or stored whole, and why."""

    output: Output
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of the outputs that were to be pulled or pushed."""

    outputs: list[Output]
    lacking: list[Lack]


def pull(root: Path, remote: str | None, *, force: bool) -> Outcome:
    """Put every output that dvc.lock records in place, from the cache or else from a remote.

    What is lacking is left out whole; the rest is put in place.

    Args:
        remote: its name; None for the default one.
        force: replace files that differ from dvc.lock, though no cache holds them.

    Raises:
        InputError: if the remote cannot be reached, or holds nothing.
        DvcException: if ``root`` is no DVC repository, another DVC command runs in it, or a file
            that no cache holds would be replaced.
    """
    with opened(root) as repo:
        outputs = kept_outputs(repo)
        with reaching(repo, remote) as place:
            lacking = fetched(outputs, repo.cache.local, place.objects)
            if lacking and not place.exists:
                raise _nothing_there(place, lacking, root)
        # Not repo.checkout: it reads dvc.lock anew for every target, and where an object is
        # lacking removes what the workspace has of the output.
        with writing([output.place for output in outputs], repo, "pull"):
            for output in _without(lacking, outputs):
                output.put_in_place(force=force)
        _remember_runs(repo)
        repo.drop_data_index()  # DVC's memory of directories as they were before
    return Outcome(outputs, lacking)


def _nothing_there(remote: Remote, lacking: Sequence[Lack], root: Path) -> InputError:
    cost = total_duration((lack.output.stage for lack in lacking), stage_seconds(root))
    return InputError(
        Problem(
            remote.label,
            "nothing at this address",
            "artifacts are pulled from where somebody has pushed them",
            "whoever has the artifacts runs `make push`; docs/remotes has remotes that other"
            f" machines reach. `make reproduce` computes them: {cost}",
        )
    )


def push(root: Path, remote: str | None) -> Outcome:
    """Store every output that dvc.lock records in a remote.

    Raises:
        InputError, DvcException: as :func:`pull`.
    """
    with opened(root) as repo, reaching(repo, remote) as place:
        outputs = kept_outputs(repo)
        return Outcome(outputs, stored(outputs, repo.cache.local, place.objects))


def fetched(outputs: Sequence[Output], cache: HashFileDB, remote: HashFileDB) -> list[Lack]:
    """Bring the objects of ``outputs`` into ``cache``; what it lacks afterwards."""
    reasons = fetch(_own_objects(outputs), cache, remote)
    files = _files(outputs, cache, reasons)
    reasons |= fetch([oid for oids in files.values() for oid in oids], cache, remote)
    return _lacking(outputs, files, reasons)


def stored(outputs: Sequence[Output], cache: HashFileDB, remote: HashFileDB) -> list[Lack]:
    """Store the objects of ``outputs`` in ``remote``; what it lacks afterwards.

    A directory's list is stored last: where it stands, its files do.
    """
    reasons = fetch(filter(is_directory, _own_objects(outputs)), cache, remote)
    files = _files(outputs, cache, reasons)
    reasons |= upload([oid for oids in files.values() for oid in oids], cache, remote)
    whole = _without(_lacking(outputs, files, reasons), outputs)
    reasons |= upload(_own_objects(whole), cache, remote)
    return _lacking(outputs, files, reasons)


def _own_objects(outputs: Sequence[Output]) -> list[str]:
    return [output.oid for output in outputs if output.oid]


def _files(
    outputs: Sequence[Output], cache: HashFileDB, reasons: dict[str, str]
) -> dict[Output, list[str]]:
    """The files of each output whose own object is not among ``reasons``."""
    return {
        output: files_of(output.oid, cache)
        for output in outputs
        if output.oid and output.oid not in reasons
    }


def _lacking(
    outputs: Sequence[Output], files: dict[Output, list[str]], reasons: dict[str, str]
) -> list[Lack]:
    lacking = []
    for output in outputs:
        found = [reasons[oid] for oid in (output.oid, *files.get(output, [])) if oid in reasons]
        if not output.oid:
            found = [NEVER_MADE]
        if found:
            others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            lacking.append(Lack(output, found[0] + others))
    return lacking


def _without(lacking: Sequence[Lack], outputs: Sequence[Output]) -> list[Output]:
    lacked = {lack.output for lack in lacking}
    return [output for output in outputs if output not in lacked]


def _remember_runs(repo: Repo) -> None:
    """Enter what is in place in the run cache, as DVC does where it is computed.

    So a param that is changed and changed back costs here what it costs there. DVC has run records
    of those stages alone all of whose outputs it keeps.
    """
    for stage in repo.index.stages:
        if all(out.use_cache for out in stage.outs) and not stage.changed():
            repo.stage_cache.save(stage)

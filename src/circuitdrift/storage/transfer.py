"""Objects from a remote into the cache, and back: every one arrives whole, or is named with why.

DVC's own transfer counts an object that it finds damaged as transferred, and takes a directory for
stored where its list is. Here each object is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dvc.fs.callbacks import TqdmCallback
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash import hash_file

NOWHERE = "neither in the cache nor in the remote"


def fetch(oids: Iterable[str], cache: HashFileDB, remote: HashFileDB) -> dict[str, str]:
    """Bring objects into ``cache`` where it lacks them, hashing each as it arrives.

    Returns:
        for each object that ``cache`` lacks afterwards, or holds damaged, why.
    """
    oids = set(oids)
    wanted = _absent(oids, cache)
    damaged = _damaged(oids.difference(wanted), cache)
    there = _there(wanted, remote)
    errors = _copy(
        sorted(there),
        lambda arriving, on_error, progress: cache.add(
            [remote.oid_to_path(oid) for oid in arriving],
            remote.fs,
            arriving,
            verify=True,
            check_exists=False,
            on_error=on_error,
            callback=progress,
        ),
        "Fetching",
    )
    return damaged | {
        oid: NOWHERE
        if oid not in there
        else errors.get(oid, f"damaged in the remote; remove it there: {remote.oid_to_path(oid)}")
        for oid in _absent(wanted, cache)
    }


def upload(oids: Iterable[str], cache: HashFileDB, remote: HashFileDB) -> dict[str, str]:
    """Store objects of ``cache`` in ``remote``, where it lacks them or a broken transfer left a
    part of them.

    Returns:
        for each object that ``remote`` lacks afterwards, why.
    """
    oids = set(oids)
    here = oids - set(_absent(oids, cache))
    there = _there(oids, remote)
    cut_short = _cut_short(here & there, cache, remote)
    leaving = (here - there) | cut_short
    damaged = _damaged(leaving, cache)
    for oid in cut_short.difference(damaged):
        remote.delete(oid)
    errors = _copy(
        sorted(leaving.difference(damaged)),
        lambda sent, on_error, progress: remote.add(
            [cache.oid_to_path(oid) for oid in sent],
            cache.fs,
            sent,
            verify=False,  # what leaves was hashed above
            check_exists=False,
            on_error=on_error,
            callback=progress,
        ),
        "Pushing",
    )
    return {
        **dict.fromkeys(oids - here - there, NOWHERE),
        **damaged,
        **errors,
    }


def _absent(oids: Iterable[str], cache: HashFileDB) -> list[str]:
    oids = set(oids)
    return sorted(oids - set(cache.oids_exist(oids)))


def _there(oids: Iterable[str], remote: HashFileDB) -> set[str]:
    """Those of ``oids`` that ``remote`` has. By listing it: ``exists`` says no to any error."""
    oids = set(oids)
    if not oids:
        return oids
    return oids & {"".join(remote.fs.parts(path)[-2:]) for path in remote.fs.find(remote.path)}


def _cut_short(oids: Iterable[str], cache: HashFileDB, remote: HashFileDB) -> set[str]:
    """Those of ``oids``, which both have, whose size in ``remote`` is another."""
    oids = sorted(oids)
    if not oids:
        return set()
    infos = remote.fs.info([remote.oid_to_path(oid) for oid in oids])
    sizes = [cache.fs.size(cache.oid_to_path(oid)) for oid in oids]
    return {oid for oid, info, size in zip(oids, infos, sizes, strict=True) if info["size"] != size}


def _damaged(oids: Iterable[str], cache: HashFileDB) -> dict[str, str]:
    """What is wrong with those of ``oids`` that ``cache`` holds with other bytes, or unreadable.

    DVC takes an object that nobody may write to for whole.
    """
    damaged = {}
    for oid in oids:
        path = cache.oid_to_path(oid)
        try:
            _, found = hash_file(path, cache.fs, "md5")
        except OSError as error:
            damaged[oid] = f"cannot be read in the cache: {error}"
            continue
        if found.value != oid.partition(".")[0]:
            damaged[oid] = f"damaged in the cache: {path}; see `circuitdrift verify --repair`"
    return damaged


Add = Callable[[list[str], Callable[[str, BaseException], None], TqdmCallback], object]


def _copy(oids: list[str], add: Add, description: str) -> dict[str, str]:
    """Copy objects by ``add``; for each that failed, of what."""
    errors: dict[str, str] = {}

    def note(oid: str, error: BaseException) -> None:
        errors[oid] = str(error) or type(error).__name__

    if oids:
        with TqdmCallback(desc=description, unit="file") as progress:
            try:
                add(oids, note, progress)
            except FileNotFoundError:
                # DVC moves a file into place even where its download has just failed. The files
                # that were not tried any more failed of the same.
                if not errors:
                    raise
                return {**dict.fromkeys(oids, next(iter(errors.values()))), **errors}
    return errors

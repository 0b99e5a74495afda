"""What lies where: everything hashed anew, and the remote asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from circuitdrift.integrity.cache import TEXT, cache_copies, cache_path, run_record_copies
from circuitdrift.integrity.expected import Needed, needed_by
from circuitdrift.integrity.git import committed_bytes
from circuitdrift.integrity.hashing import Track, md5_of_bytes
from circuitdrift.integrity.known_listings import find_listings
from circuitdrift.integrity.listings import Listing
from circuitdrift.integrity.objects import Area, Copy, Found, State
from circuitdrift.integrity.pipeline import Study
from circuitdrift.integrity.remote import (
    NothingThereError,
    Remote,
    UnreachableError,
    default_remote,
    remote_copies,
)
from circuitdrift.integrity.repair import Owners, Step, plan
from circuitdrift.integrity.workspace import found_in_workspace, workspace_copies


@dataclass(frozen=True)
class Survey:
    """What lies where.

    Attributes:
        copies: of objects, wherever they should lie.
        run_records: DVC's records of what was run.
        needed: what dvc.lock asks for.
        listings: of the outputs that are directories, by id, those that were found.
        found: what lies in the workspace, by path.
        remote: None where none is configured or none answers.
        unreachable: why none answers.
        empty: what says that nothing was ever pushed, unless the remote is to be hashed, too: then
            that is a remote that does not answer.
    """

    copies: tuple[Copy, ...]
    run_records: tuple[Copy, ...]
    needed: tuple[Needed, ...]
    listings: Mapping[str, Listing]
    found: Mapping[str, Found]
    remote: Remote | None
    unreachable: str
    empty: str

    @cached_property
    def owners(self) -> Owners:
        return Owners.of_needed(self.needed)

    @cached_property
    def steps(self) -> list[Step]:
        return plan([*self.copies, *self.run_records], self.owners, self.listings)


def survey(study: Study, *, rehash_remote: bool, track: Track) -> Survey:
    """Hash the cache and the workspace, and ask the remote.

    Args:
        rehash_remote: download the remote's objects and hash them, too.

    Raises:
        InputError: if a listing that dvc.lock asks for is none.
    """
    remote, unreachable, empty = None, "", ""
    try:
        remote = default_remote(study)
    except NothingThereError as error:
        unreachable, empty = (str(error), "") if rehash_remote else ("", str(error))
    except UnreachableError as error:
        unreachable = str(error)
    if rehash_remote and remote is None and not unreachable:
        unreachable = "no remote is configured"
    cache = cache_copies(study, track)
    found = found_in_workspace(study, track)
    listings = find_listings(study, cache, found, remote)
    needed = tuple(needed_by(study.outs, listings))
    kept_by_dvc = tuple(dict.fromkeys(need.oid for need in needed if need.out.cached))
    workspace = workspace_copies(study, found, listings)
    copies = [*cache, *_missing(study, kept_by_dvc, cache), *workspace]
    copies += _committed(study, needed, workspace)
    if remote is not None:
        asked = partial(remote_copies, remote, scratch=study.scratch, track=track)
        copies += asked(kept_by_dvc, rehash=rehash_remote)
        # An older result may have been pushed when it was new, or not.
        older = _corrupt_of_older(cache, kept_by_dvc)
        copies += (copy for copy in asked(older, rehash=rehash_remote) if not copy.bad)
    records = tuple(run_record_copies(study))
    return Survey(tuple(copies), records, needed, listings, found, remote, unreachable, empty)


def _missing(study: Study, oids: Iterable[str], cache: Sequence[Copy]) -> Iterator[Copy]:
    """What the cache should have and has not."""
    there = {copy.path for copy in cache}
    for oid in oids:
        path = study.shown(cache_path(study, oid))
        if path not in there:
            yield Copy(Area.CACHE, path, oid, State.MISSING)


def _corrupt_of_older(cache: Sequence[Copy], kept_by_dvc: Collection[str]) -> list[str]:
    """Corrupted objects that dvc.lock does not name."""
    corrupt = {copy.oid for copy in cache if copy.bad and not copy.oid.startswith(TEXT)}
    return sorted(corrupt.difference(kept_by_dvc))


def _committed(study: Study, needed: Sequence[Needed], workspace: Sequence[Copy]) -> Iterator[Copy]:
    """The last commit's copies of files that git keeps and that are bad in the workspace."""
    kept_by_git = {need.name for need in needed if not need.out.cached}
    for copy in workspace:
        if copy.bad and copy.path in kept_by_git:
            content = committed_bytes(study.root, copy.path)
            if content is not None and md5_of_bytes(content) == copy.oid:
                yield Copy(Area.GIT, copy.path, copy.oid, State.INTACT)

"""The listings of the outputs that are directories, wherever an intact one is found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from circuitdrift.integrity.git import committed_md5s
from circuitdrift.integrity.hashing import md5_of_bytes
from circuitdrift.integrity.listings import Listing, files_below, listing_oid, parse_listing
from circuitdrift.integrity.objects import DIRECTORY, Copy, Found, State, md5_part
from circuitdrift.integrity.pipeline import Out, Study
from circuitdrift.integrity.remote import Remote, fetched_bytes


def find_listings(
    study: Study,
    cache: Sequence[Copy],
    found: Mapping[str, Found],
    remote: Remote | None,
) -> dict[str, Listing]:
    """The listing of each output that is a directory, by its id; none where it is lost.

    Args:
        cache: the cache's copies.
        found: what lies in the workspace.

    Raises:
        InputError: if a listing that dvc.lock asks for names files outside of its directory.
    """
    intact = {copy.oid: copy.path for copy in cache if copy.state is State.INTACT}
    md5s = {path: lying.md5 for path, lying in found.items() if lying.md5 is not None}
    listings = {}
    for out in study.outs:
        if out.oid is None or not out.oid.endswith(DIRECTORY) or out.oid in listings:
            continue
        if out.oid in intact:
            content = (study.root / intact[out.oid]).read_bytes()
            listings[out.oid] = parse_listing(content, out.path)
            continue
        elsewhere = _elsewhere(study, out, out.oid, md5s, remote)
        if (listing := next(elsewhere, None)) is not None:
            listings[out.oid] = listing
    return listings


def _elsewhere(
    study: Study,
    out: Out,
    oid: str,
    md5s: Mapping[str, str],
    remote: Remote | None,
) -> Iterator[Listing]:
    """The listing as the workspace, the last commit or the remote has it, where it is the right
    one."""
    if listing_oid(listing := files_below(out.path, md5s)) == oid:
        yield listing
    if not out.cached:
        committed = committed_md5s(study.root, out.path)
        if listing_oid(listing := files_below(out.path, committed)) == oid:
            yield listing
    elif remote is not None:
        content = fetched_bytes(remote, oid, study.scratch)
        if content is not None and md5_of_bytes(content) == md5_part(oid):
            yield parse_listing(content, out.path)

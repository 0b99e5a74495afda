"""What should be there according to dvc.lock and the listings that it names. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from circuitdrift.integrity.listings import Listing, files_below, listing_oid
from circuitdrift.integrity.objects import DIRECTORY
from circuitdrift.integrity.pipeline import Out


@dataclass(frozen=True)
class Needed:
    """Something that an output consists of: a file, or a directory's listing.

    Attributes:
        name: the file's path, or the directory's with a slash behind it.
        oid: of its object.
        out: the output it belongs to.
    """

    name: str
    oid: str
    out: Out


def needed_by(outs: Iterable[Out], listings: Mapping[str, Listing]) -> Iterator[Needed]:
    """Everything that the outputs consist of; of a directory whose listing is unknown, the listing
    alone."""
    for out in outs:
        if out.oid is None:
            continue
        if not out.oid.endswith(DIRECTORY):
            yield Needed(out.path, out.oid, out)
            continue
        yield Needed(f"{out.path}/", out.oid, out)
        for path, md5 in listings.get(out.oid, {}).items():
            yield Needed(f"{out.path}/{path}", md5, out)


def produced_oid(
    path: str, outs: Iterable[Out], listings: Mapping[str, Listing]
) -> tuple[bool, str | None]:
    """Whether stages make what lies at ``path``, and its id as their entries in dvc.lock give it.

    ``path`` may be an output, a file in one, or a directory of several. The id is None where a
    listing that it depends on is unknown.
    """
    outs = tuple(outs)
    if exact := [out for out in outs if out.path == path]:
        return True, exact[0].oid
    made = [out for out in outs if _overlap(out.path, path)]
    if any(out.oid is None or _unlisted(out.oid, listings) for out in made):
        return True, None
    files = {need.name: need.oid for need in needed_by(made, listings)}
    if path in files:
        return True, files[path]
    return bool(made), listing_oid(files_below(path, _without_listings(files))) if made else None


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _unlisted(oid: str, listings: Mapping[str, Listing]) -> bool:
    return oid.endswith(DIRECTORY) and oid not in listings


def _without_listings(files: Mapping[str, str]) -> dict[str, str]:
    return {path: oid for path, oid in files.items() if not path.endswith("/")}

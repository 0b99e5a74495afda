"""From what lies where, what is wrong and what would mend it. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from circuitdrift.integrity.expected import Needed
from circuitdrift.integrity.objects import Area, Copy, Finding, State
from circuitdrift.integrity.pipeline import Out

# Where a copy is taken from first: what is near and hashed, then what has to be fetched.
_PREFERENCE = (Area.CACHE, Area.WORKSPACE, Area.GIT, Area.REMOTE)

Share = tuple[Area, str]  # an area and an output's path


@dataclass(frozen=True)
class Step:
    """What is to be done about a bad copy.

    Attributes:
        copy: the bad one.
        sources: copies to put in its place, the best first; the last may turn out bad when read.
        from_listing: whether its bytes can be written from a listing that is known.
        set_aside: whether it is to be moved out of the way where no source holds.
        needed: what it belongs to; None for an object that dvc.lock does not name.
    """

    copy: Copy
    sources: tuple[Copy, ...]
    from_listing: bool
    set_aside: bool
    needed: Needed | None

    @property
    def hopeful(self) -> bool:
        return bool(self.sources) or self.from_listing


@dataclass(frozen=True)
class Owners:
    """Which needed thing a copy is of: in the workspace told by its path, elsewhere by its id."""

    by_name: Mapping[str, Needed]
    by_oid: Mapping[str, Needed]

    @classmethod
    def of_needed(cls, needed: Sequence[Needed]) -> Owners:
        # An object that several outputs share is named by the first of them.
        by_oid = {need.oid: need for need in reversed(needed)}
        return cls({need.name: need for need in needed}, by_oid)

    def owner(self, copy: Copy) -> Needed | None:
        if copy.area is Area.WORKSPACE:
            return self.by_name.get(copy.path)
        return self.by_oid.get(copy.oid)

    def shares(self, copies: Iterable[Copy]) -> Counter[Share]:
        """How many of the copies each area should have of each output."""
        owned = ((copy.area, self.owner(copy)) for copy in copies)
        return Counter((area, need.out.path) for area, need in owned if need is not None)


def plan(copies: Sequence[Copy], owners: Owners, known_listings: Collection[str]) -> list[Step]:
    """A step for each bad copy.

    Args:
        copies: all that were looked at, also the good.
        known_listings: ids of the directories whose listing was found somewhere.
    """
    usable = defaultdict(list)
    for copy in sorted(copies, key=lambda copy: _PREFERENCE.index(copy.area)):
        if copy.state in (State.INTACT, State.UNREAD):
            usable[copy.oid].append(copy)
    return [
        Step(
            copy=copy,
            sources=tuple(usable[copy.oid]),
            from_listing=copy.oid in known_listings,
            # In the workspace it may be somebody's work, in the remote somebody else's.
            set_aside=copy.area is Area.CACHE and copy.state is State.CORRUPT,
            needed=owners.owner(copy),
        )
        for copy in copies
        if copy.bad
    ]


def copy_findings(steps: Sequence[Step], shares: Counter[Share]) -> Iterator[Finding]:
    """A finding for each bad copy, and one where all of an output is missing from an area.

    Args:
        shares: how many copies each area should have of each output.
    """
    missing = defaultdict(list)
    for step in steps:
        if step.needed is not None and step.copy.state is State.MISSING:
            missing[step.copy.area, step.needed.out.path].append(step)
    whole = {share for share, gone in missing.items() if len(gone) == shares[share] > 1}
    for share in sorted(whole):
        yield _finding_of_all(missing[share])
    for step in steps:
        if step.needed is None or (step.copy.area, step.needed.out.path) not in whole:
            yield Finding(step.copy.area, _named(step), _wrong(step.copy), _remedy([step]))


def _finding_of_all(steps: Sequence[Step]) -> Finding:
    needed = steps[0].needed
    assert needed is not None
    wrong = f"all of it is missing, {len(steps)} objects"
    return Finding(steps[0].copy.area, needed.out.path, wrong, _remedy(steps))


def _named(step: Step) -> str:
    path = step.copy.path
    return (
        path if step.needed is None or step.needed.name == path else f"{path} ({step.needed.name})"
    )


def _wrong(copy: Copy) -> str:
    return f"{copy.state.value} ({copy.detail})" if copy.detail else copy.state.value


def _remedy(steps: Sequence[Step]) -> str:
    """What to do about bad copies of one output."""
    first = steps[0]
    if all(step.hopeful for step in steps):
        areas = {step.sources[0].area.value if step.sources else "workspace" for step in steps}
        return f"`circuitdrift verify --repair` brings it back from {' and '.join(sorted(areas))}"
    if first.needed is not None:
        return f"no other copy was found: `dvc pull`, or {recomputed_by(first.needed.out)}"
    return "dvc.lock does not name it: `circuitdrift verify --repair` moves it aside"


def recomputed_by(out: Out) -> str:
    """The command that makes an output anew, whatever DVC thinks of it."""
    return f"`dvc repro --force --single-item {out.stage}`"

"""From what lies where to a report: a table, findings and notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from circuitdrift.integrity.contents import content_findings
from circuitdrift.integrity.expected import Needed
from circuitdrift.integrity.git import uncommitted
from circuitdrift.integrity.hashing import Track
from circuitdrift.integrity.listings import Listing
from circuitdrift.integrity.objects import DIRECTORY, Area, Checked, Copy, Finding, State
from circuitdrift.integrity.pipeline import LOCK, PIPELINE, Study
from circuitdrift.integrity.provenance import (
    count_of_statements,
    kept_by_git,
    provenance_findings,
)
from circuitdrift.integrity.repair import copy_findings, recomputed_by
from circuitdrift.integrity.survey import Survey
from circuitdrift.integrity.workspace import found_input, unasked_for


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Attributes:
        checked: the lines of the table.
        findings: what does not hold.
        notes: what a reader should know and is no fault.
        restored: what a repair brought back, a line each.
        lost: what it could not bring back.
    """

    checked: tuple[Checked, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    restored: tuple[str, ...] = ()
    lost: tuple[Finding, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.findings and not self.lost


def assess(study: Study, surveyed: Survey, track: Track) -> Report:
    """Read the files whose bytes are right, hold dvc.lock against the code, and report."""
    of_copies = copy_findings(surveyed.steps, surveyed.owners.shares(surveyed.copies))
    of_outputs = list(_of_outputs(study, surveyed))
    of_remote = list(_of_remote(study, surveyed))
    n_read, of_contents = content_findings(study.root, _readable(surveyed), track)
    of_provenance = _of_provenance(study, surveyed.listings)
    checked = (
        _counted("objects", Area.CACHE, surveyed.copies),
        _counted("records of runs", Area.CACHE, surveyed.run_records),
        _counted("files of outputs", Area.WORKSPACE, surveyed.copies, len(of_outputs)),
        _counted(_asked(surveyed), Area.REMOTE, surveyed.copies, len(of_remote)),
        Checked(Area.CONTENTS, "files read", n_read, len({each.path for each in of_contents})),
        Checked(
            Area.PROVENANCE,
            "commands, params, inputs, outputs",
            count_of_statements(study.stages),
            len(of_provenance),
        ),
    )
    findings = (*of_copies, *of_outputs, *of_remote, *of_contents, *of_provenance)
    return Report(checked, findings, tuple(_notes(study, surveyed)))


def _counted(what: str, area: Area, copies: Iterable[Copy], more: int = 0) -> Checked:
    here = [copy for copy in copies if copy.area is area]
    return Checked(area, what, len(here), sum(copy.bad for copy in here) + more)


def _asked(surveyed: Survey) -> str:
    if surveyed.unreachable:
        return "cannot be asked"
    if surveyed.remote is None:
        return "never pushed to" if surveyed.empty else "none is configured"
    unread = any(copy.state is State.UNREAD for copy in surveyed.copies)
    return "objects, asked for alone" if unread else "objects"


def _readable(surveyed: Survey) -> list[Needed]:
    intact = {
        copy.path
        for copy in surveyed.copies
        if copy.area is Area.WORKSPACE and copy.state is State.INTACT
    }
    return [need for need in surveyed.needed if need.name in intact]


def _of_outputs(study: Study, surveyed: Survey) -> Iterator[Finding]:
    for name in unasked_for(study, surveyed.found, surveyed.listings):
        wrong = "lies in an output's directory, and dvc.lock does not know it"
        yield Finding(Area.WORKSPACE, name, wrong, "remove it, or move it elsewhere")
    for out in study.outs:
        if out.oid is not None and out.oid.endswith(DIRECTORY) and out.oid not in surveyed.listings:
            wrong = "its listing is lost, so its files cannot be told right from wrong"
            remedy = f"`dvc pull`, or {recomputed_by(out)}"
            yield Finding(Area.WORKSPACE, out.path, wrong, remedy)


def _of_remote(study: Study, surveyed: Survey) -> Iterator[Finding]:
    if surveyed.unreachable:
        name = study.repo.config["core"].get("remote", ".dvc/config")
        remedy = "see `dvc remote list`; `make push` fills one that is empty"
        yield Finding(Area.REMOTE, name, f"cannot be asked: {surveyed.unreachable}", remedy)


def _of_provenance(study: Study, listings: Mapping[str, Listing]) -> list[Finding]:
    inputs = kept_by_git(study.stages, study.outs, listings)
    found = {path: found_input(study, path) for path in inputs}
    return list(provenance_findings(study.stages, study.outs, listings, found))


def _notes(study: Study, surveyed: Survey) -> Iterator[str]:
    if study.left_over:
        names = ", ".join(study.left_over)
        yield f"{LOCK} has stages that {PIPELINE} no longer has: {names}"
    if surveyed.empty:
        yield f"the remote has nothing ({surveyed.empty}): the cache is the only other copy"
    elif surveyed.remote is None and not surveyed.unreachable:
        yield "no remote is configured: the cache is the only other copy"
    elif surveyed.remote is not None and _asked(surveyed) != "objects":
        yield "the remote's objects are there, their bytes unread: `--remote` hashes them"
    kept = kept_by_git(study.stages, study.outs, surveyed.listings)
    results = [out.path for out in study.outs if not out.cached]
    if changed := uncommitted(study.root, [LOCK, PIPELINE, "params.yaml", *kept, *results]):
        shown = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        yield f"not committed: {shown}"

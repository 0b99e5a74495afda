"""The whole verification, and the repair of what it found."""

from __future__ import annotations

from dataclasses import replace

from circuitdrift.integrity.assessment import Report, assess
from circuitdrift.integrity.hashing import Track, untracked
from circuitdrift.integrity.pipeline import Study
from circuitdrift.integrity.restoring import Restorer
from circuitdrift.integrity.survey import survey
from circuitdrift.storage.remote import writing


def verify(study: Study, *, rehash_remote: bool = False, track: Track = untracked) -> Report:
    """Verify a study.

    Args:
        rehash_remote: download the remote's objects and hash them, too.

    Raises:
        InputError: if a listing that dvc.lock asks for is none.
    """
    return assess(study, survey(study, rehash_remote=rehash_remote, track=track), track)


def repair(study: Study, *, rehash_remote: bool = False, track: Track = untracked) -> Report:
    """Bring back what can be, and verify the study as it then is. Takes DVC's locks.

    Raises:
        InputError: as :func:`verify`.
        DvcException: if another DVC command has the lock, or a stage runs.
    """
    outputs = [str(study.root / out.path) for out in study.outs]
    with study.repo.lock, writing(outputs, study.repo, "verify --repair"):
        before = survey(study, rehash_remote=rehash_remote, track=track)
        repaired = Restorer(study, before.listings, before.remote).repair(before.steps)
        after = verify(study, rehash_remote=rehash_remote, track=track)
    return replace(after, restored=repaired.restored, lost=repaired.lost)

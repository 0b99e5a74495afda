"""What experiments share: stages that come before any training.

DVC's run cache gives a stage's results to every experiment with equal inputs, but only once they
are there: two workers that start together would both import the base model. So it is made ready
beforehand, once for every set of params that these stages read. (`evaluate_base` is not among
them: the run cache leaves out stages whose tables git keeps.)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from circuitdrift.sweeps.finished import PIPELINE
from circuitdrift.sweeps.plan import Member
from circuitdrift.validation import read_yaml

SHARED_STAGES = ("import_base", "make_dataset", "attribute_base")


def first_of_each(root: Path, missing: Iterable[Member], done: Iterable[Member]) -> list[Member]:
    """One missing member for each set of params that the shared stages read and no finished member
    has.

    The examples do not count: making them takes a second, and the prompts do not depend on them.
    """
    stages: dict[str, dict[str, Any]] = read_yaml(root / PIPELINE)["stages"]
    sections = {
        section
        for name in SHARED_STAGES
        if name != "make_dataset"
        for section in stages[name]["params"]
    }

    def shared(member: Member) -> str:
        return member.params.model_dump_json(include=sections)

    ready = set(map(shared, done))
    first: dict[str, Member] = {}
    for member in missing:
        if shared(member) not in ready:
            first.setdefault(shared(member), member)
    return list(first.values())

"""Kills at points spread over all stages, in DVC itself, and within the bytes of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reliability.finished import Finished, make_stale
from reliability.injection import Event, killing, killing_beyond
from reliability.outcomes import (
    CLEAR_ERROR,
    SAME_LOCK,
    Outcome,
    Scenario,
    errors,
    failing,
    killed,
    recovered,
)

REPRO = ("dvc", "repro", "--no-run-cache")
IN_PLACE: Event = "os.rename"
OPENED: Event = "open"


@dataclass(frozen=True)
class Kill:
    """SIGKILL of a stage, and of DVC with it, when it is about to write or to put in place a path.

    Attributes:
        path: pattern of the path, from the clone's root.
        says: what the moment is.
        keep_runs: whether DVC's records of the stages' runs are there to recover from.
    """

    stage: str
    event: Event
    path: str
    says: str
    nth: int = 1
    in_dvc: bool = False
    keep_runs: bool = False
    quick: bool = False

    @property
    def program(self) -> str:
        return "dvc repro" if self.in_dvc else f"src/run.py {self.stage.replace('@', ' ')}"

    @property
    def scenario(self) -> Scenario:
        return Scenario("SIGKILL", f"{self.stage}: {self.says}", self.run, quick=self.quick)

    def run(self, study: Finished, parent: Path) -> Outcome:
        clone = study.copy(parent)
        make_stale(clone, self.stage, self.keep_runs)
        killer = killing(clone, self.program, self.event, self.path, self.nth)
        killed(killer.start(*REPRO))
        return recovered(study, clone, SAME_LOCK, "", study.lost(clone, self.stage))


KILLS = (
    Kill(
        "import_base",
        OPENED,
        "models/base.partial-*/source.json.partial-*",
        "weights written, source.json not",
    ),
    Kill("make_dataset", OPENED, "data/dataset.partial-*/*", "second of four files", nth=2),
    Kill(
        "finetune@mapped-0",
        OPENED,
        "models/checkpoints/mapped-0.partial-*/*/adapter_config.json*",
        "within the second checkpoint",
        nth=3,
        quick=True,
    ),
    Kill(
        "finetune@shuffled-0",
        IN_PLACE,
        "models/checkpoints/shuffled-0",
        "log in place, checkpoints not",
    ),
    Kill("evaluate_base", IN_PLACE, "reports/metrics/evaluation/base.json", "one of two outputs"),
    Kill(
        "evaluate@mapped-0",
        OPENED,
        "reports/tables/evaluation/mapped-0.csv.partial-*",
        "table opened, nothing in it",
    ),
    Kill("attribute_base", IN_PLACE, "data/attributions/base", "whole, not in place"),
    Kill(
        "attribute@mapped-0",
        OPENED,
        "data/attributions/mapped-0.partial-*/planted/planted.json*",
        "circuits written, planted.json not",
        quick=True,
    ),
    Kill("compare", IN_PLACE, "reports/tables/overlap.csv", "some tables new", quick=True),
    Kill(
        "validate@mapped-0",
        OPENED,
        "reports/tables/validation/mapped-0.partial-*/*",
        "second of five tables",
        nth=2,
    ),
    Kill("report", OPENED, "reports/figures.partial-*/*.png", "fifth figure", nth=5),
    Kill(
        "attribute@shuffled-0",
        IN_PLACE,
        ".dvc/cache/files/md5/*",
        "DVC moves the fifth file into its cache",
        nth=5,
        in_dvc=True,
        quick=True,
    ),
    Kill(
        "report",
        OPENED,
        "dvc.lock",
        "DVC is about to write dvc.lock",
        in_dvc=True,
        keep_runs=True,
    ),
)


@dataclass(frozen=True)
class KillWithin:
    """The kernel ends a stage within a write, at a byte of an output."""

    stage: str
    size: int
    says: str

    @property
    def scenario(self) -> Scenario:
        point = f"{self.stage}: {self.says}"
        return Scenario("killed within a write", point, self.run, says=self.stage)

    def run(self, study: Finished, parent: Path) -> Outcome:
        clone = study.copy(parent)
        make_stale(clone, self.stage)
        program = f"src/run.py {self.stage.replace('@', ' ')}"
        output = failing(killing_beyond(clone, program, self.size).start(*REPRO))
        lost = study.lost(clone, self.stage)
        return recovered(study, clone, CLEAR_ERROR, errors(output, clone), lost)


WITHIN = (
    KillWithin("import_base", 10_000, "at byte 10,000 of the weights"),
    KillWithin("attribute@mapped-0", 10_000, "at byte 10,000 of a file of circuits"),
)
SCENARIOS = tuple(kill.scenario for kill in (*KILLS, *WITHIN))

"""Every fault that the study is put through, played one after another."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from reliability import damage, kills, remotes, surroundings
from reliability.clones import CommandError
from reliability.finished import Finished
from reliability.outcomes import FaultMissedError, Outcome, Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *kills.SCENARIOS,
    *damage.SCENARIOS,
    *remotes.SCENARIOS,
    *surroundings.SCENARIOS,
)


def play(scenario: Scenario, study: Finished) -> Outcome:
    """Play a fault in a temporary copy of the study."""
    with tempfile.TemporaryDirectory(prefix="circuit-drift-fault-") as directory:
        try:
            return scenario.play(study, Path(directory).resolve())
        except FaultMissedError as error:
            return Outcome("the fault could not be brought about", str(error))
        except CommandError as error:
            return Outcome("a command fails that should not", str(error))


def play_all(scenarios: Iterable[Scenario], study: Finished) -> Iterator[tuple[Scenario, Outcome]]:
    for scenario in scenarios:
        yield scenario, play(scenario, study)

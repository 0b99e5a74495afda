"""How a sweep goes, for who watches it: a bar with the time left, and a line an event."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from circuitdrift.sweeps.dvc_queue import QueueState


class ConsoleDisplay:
    """On a terminal, a bar below the lines; where there is none, the lines alone."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("experiments"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[running]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._console = console
        self._clock = Remaining()
        self._task = self._progress.add_task("experiments", total=None, left="", running="")

    def __enter__(self) -> ConsoleDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, words: str) -> None:
        self._console.print(Text(words))

    def show(self, state: QueueState, finished: int, total: int) -> None:
        left = self._clock.seconds_left(finished, len(state.names), time.monotonic())
        self._progress.update(
            self._task,
            completed=finished,
            total=total,
            left="" if left is None else f"about {max(1, round(left / 60))} min left",
            running=", ".join(sorted(state.running)),
        )


class Remaining:
    """Seconds that the open experiments will take, by those that finished since the start."""

    def __init__(self) -> None:
        self._start: tuple[int, float] | None = None

    def seconds_left(self, finished: int, n_open: int, now: float) -> float | None:
        """None before the first one has finished."""
        if self._start is None:
            self._start = (finished, now)
        before, began = self._start
        if finished == before:
            return None
        return (now - began) / (finished - before) * n_open

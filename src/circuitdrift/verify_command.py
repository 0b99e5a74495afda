"""``circuitdrift verify``: the table, the findings and the exit status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from circuitdrift.errors import InputError

if TYPE_CHECKING:  # DVC, torch and transformers take seconds to import, and --help none of them
    from circuitdrift.integrity.assessment import Report
    from circuitdrift.integrity.hashing import Advance, Track
    from circuitdrift.integrity.objects import Checked, Finding


def verify(
    root: Annotated[
        Path,
        typer.Option(
            help="The study's root: the folder of dvc.yaml.", file_okay=False, exists=True
        ),
    ] = Path(),
    remote: Annotated[
        bool, typer.Option("--remote", help="Download the remote's objects and hash them, too.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Bring back what the cache, git or a remote still has."),
    ] = False,
) -> None:
    """Check every byte of the study: cache, workspace, remote, contents and where they come from.

    Exits with 0 only if all holds. Without --repair nothing is written. A repair deletes nothing
    that has no intact copy: what cannot be replaced is moved to .dvc/tmp/quarantine.
    """
    errors = Console(stderr=True)
    from dvc.exceptions import DvcException

    from circuitdrift.integrity import verification
    from circuitdrift.integrity.pipeline import open_study

    act = verification.repair if repair else verification.verify
    try:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        ) as progress:
            report = act(open_study(root), rehash_remote=remote, track=_track_on(progress))
    except (InputError, DvcException) as error:
        errors.print(Text(str(error), style="red"), soft_wrap=True)
        raise typer.Exit(1) from None
    _show(report, Console())
    if not report.sound:
        raise typer.Exit(1)


def _track_on(progress: Progress) -> Track:
    """Progress bars, one for each thing that is tracked, gone when it is done."""

    @contextmanager
    def track(name: str, total: int) -> Iterator[Advance]:
        task = progress.add_task(name, total=total)
        try:
            yield lambda done: progress.advance(task, done)
        finally:
            progress.remove_task(task)

    return track


def _show(report: Report, console: Console) -> None:
    console.print(_table(report.checked))
    for line in report.restored:
        console.print(Text(f"repaired  {line}", style="green"), soft_wrap=True)
    for title, findings in (("lost", report.lost), ("wrong", report.findings)):
        for finding in findings:
            console.print(_text(title, finding), soft_wrap=True)
    for note in report.notes:
        console.print(Text(f"note  {note}", style="dim"), soft_wrap=True)


def _table(checked: Sequence[Checked]) -> Table:
    table = Table("", "checked", "of them bad")
    for column in table.columns[1:]:
        column.justify = "right"
    for line in checked:
        style = "red" if line.bad else "green"
        what = f"{line.area.value}: {line.what}"
        table.add_row(what, str(line.count), Text(str(line.bad), style=style))
    return table


def _text(title: str, finding: Finding) -> Text:
    return Text.assemble(
        (title, "bold red"),
        f"  {finding.area.value}: {finding.path} {finding.wrong}\n      {finding.remedy}",
    )

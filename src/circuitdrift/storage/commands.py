"""``circuitdrift pull``, ``push`` and ``share``.

What they do is imported when they run: DVC takes a second, which the other commands need not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from circuitdrift.errors import InputError
from circuitdrift.storage.costs import duration, stage_seconds, total_duration

if TYPE_CHECKING:
    from circuitdrift.storage.synchronising import Lack, Outcome

Root = Annotated[
    Path,
    typer.Option(help="The study's root: the folder of dvc.yaml.", file_okay=False, exists=True),
]
Remote = Annotated[
    str | None, typer.Option(help="The DVC remote's name.", show_default="the default remote")
]


def register(app: typer.Typer) -> None:
    for command in (pull, push, share):
        app.command()(command)


def pull(
    root: Root = Path(),
    remote: Remote = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace changed files, though no cache holds them.")
    ] = False,
) -> None:
    """Put the artifacts of the committed results in place, without computing.

    Every file that comes from the remote is hashed. Exits with 1 where something is lacking.
    """
    from circuitdrift.storage.synchronising import pull as pull_artifacts

    outcome = _or_exit(lambda: pull_artifacts(root, remote, force=force))
    _report(
        outcome,
        root,
        done="in place",
        remedy="`make reproduce` computes what is lacking ({cost});"
        " or ask who has it to run `make push`.",
    )


def push(root: Root = Path(), remote: Remote = None) -> None:
    """Store the artifacts of the results in a remote.

    Every file is hashed before it leaves. Exits with 1 where something is lacking.
    """
    from circuitdrift.storage.synchronising import push as push_artifacts

    outcome = _or_exit(lambda: push_artifacts(root, remote))
    _report(
        outcome,
        root,
        done="in the remote",
        remedy="`make reproduce` computes what is lacking ({cost}); then push again.",
    )


def share(
    name: Annotated[str, typer.Argument(help="The experiment.")],
    root: Root = Path(),
    remote: Remote = None,
    git_remote: Annotated[str, typer.Option(help="The git remote's name.")] = "origin",
) -> None:
    """Push an experiment and its artifacts, for colleagues to fetch with `dvc exp pull`.

    Exits with 1, and pushes no commit, where an artifact is lacking.
    """
    from circuitdrift.storage.sharing import share as share_experiment

    outcome = _or_exit(lambda: share_experiment(root, name, git_remote, remote))
    _report(
        outcome,
        root,
        done="in the remote",
        remedy="Its commit was not pushed. Run the experiment again ({cost}), then share it.",
    )
    Console().print(f"A colleague: dvc exp pull {git_remote} {name} && dvc exp apply {name}")


def _or_exit(act: Callable[[], Outcome]) -> Outcome:
    from dvc.exceptions import DvcException

    try:
        return act()
    except (InputError, DvcException) as error:
        Console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
        raise typer.Exit(1) from None


def _report(outcome: Outcome, root: Path, *, done: str, remedy: str) -> None:
    """Say what is done; where something is lacking, what it is, and exit with 1."""
    lacked = {lack.output for lack in outcome.lacking}
    sizes = [output.size or 0 for output in outcome.outputs if output not in lacked]
    count = f"{len(sizes)} of {len(outcome.outputs)} artifacts"
    Console().print(f"{count} ({decimal(sum(sizes))}) are {done}.")
    if outcome.lacking:
        seconds = stage_seconds(root)
        cost = total_duration((lack.output.stage for lack in outcome.lacking), seconds)
        errors = Console(stderr=True)
        errors.print(_table(outcome.lacking, seconds))
        errors.print(Text(remedy.format(cost=cost), style="red"), soft_wrap=True)
        raise typer.Exit(1)


def _table(lacking: Iterable[Lack], seconds: dict[str, float]) -> Table:
    table = Table(title="Lacking")
    for heading in ("stage", "artifact"):
        table.add_column(heading, overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("computing it", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for lack in lacking:
        output = lack.output
        cells = (
            output.stage,
            output.path,
            decimal(output.size) if output.size is not None else "size unknown",
            duration(seconds.get(output.stage)),
            lack.reason,
        )
        table.add_row(*map(Text, cells))
    return table

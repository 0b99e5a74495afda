"""The commands a person types: ``circuitdrift --help``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from circuitdrift.check import check_base, check_study
from circuitdrift.core.errors import InputError
from circuitdrift.core.prompts import Prompt
from circuitdrift.data.constraints import load_constraints, make_prompts
from circuitdrift.params import Params
from circuitdrift.verify import verify_study

app = typer.Typer(
    help="What fine-tuning changes inside a language model, measured as circuits.",
    no_args_is_help=True,
    add_completion=False,
)

Root = Annotated[
    Path,
    typer.Option(help="The study's root: the folder of params.yaml.", file_okay=False, exists=True),
]


@contextmanager
def _refusals_shown() -> Iterator[None]:
    """A refusal without a traceback, and exit status 1."""
    try:
        yield
    except InputError as error:
        Console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
        raise typer.Exit(1) from None


@app.command()
def check(root: Root = Path()) -> None:
    """Check params, constraints, sentences and the base model's files; say what would run.

    No weights are read. Exits with 1 and a remedy for every value that is refused, before any
    compute. Then it takes some seconds to tell whether this machine computes the bits of the
    committed results.
    """
    with _refusals_shown():
        params = check_study(root)
        check_base(params, root)
        prompts = make_prompts(load_constraints(root / params.dataset.constraints))
    Console().print(_summary(params, prompts))
    from circuitdrift.fingerprint import differing

    if (others := differing(root)) is not None:
        bits = (
            f"other than those of the committed results, in {', '.join(others)}"
            if others
            else "those of the committed results"
        )
        Console().print(Text.assemble(("bits computed here", "bold"), f"  {bits}"))


@app.command()
def sweep(
    root: Root = Path(),
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Experiments at a time; as many as fit if not given."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the experiments and run none.")
    ] = False,
    summary: Annotated[
        bool,
        typer.Option("--summary", help="Run none; write reports/scaling from what is finished."),
    ] = False,
) -> None:
    """Run the experiments of sweep.yaml that are not finished, through DVC's queue.

    Ctrl-C stops it and its workers; called again it goes on. Exits with 1 if an experiment failed
    or the input is refused.
    """
    with _refusals_shown():
        if summary:
            from circuitdrift.sweep.summary import PAGE, summarise

            n = summarise(root)
            Console().print(f"{n} experiments: {(root / PAGE).as_posix()}", soft_wrap=True)
        else:
            _run_sweep(root, workers, dry_run)


@app.command()
def verify(
    root: Root = Path(),
    remote: Annotated[bool, typer.Option("--remote", help="Hash what the remote has.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Bring back what is damaged.")] = False,
    reproduced: Annotated[
        bool, typer.Option("--reproduced", help="Compare the results with the committed ones.")
    ] = False,
) -> None:
    """Check every byte of the study: cache, workspace, contents and remote.

    Exits with 0 only if all holds. A repair moves what is damaged to .dvc/tmp/quarantine. Results
    that were computed anew are held against the committed ones instead with --reproduced, which
    exits with 1 if they differ by more than last bits and no param, code or data was changed.
    """
    with _refusals_shown():
        if reproduced:
            _show_reproduced(root)
            return
        with Progress(console=Console(stderr=True), transient=True) as progress:
            checked, found = verify_study(root, remote=remote, repair=repair, progress=progress)
    for area, path, wrong, advice in found:
        Console().out(f"{area}: {path} {wrong}; {advice}")
    table = Table("area", "checked", "bad")
    for area, count in checked.items():
        bad = sum(finding.area == area for finding in found)
        table.add_row(area, str(count), str(bad), style="red" if bad else "green")
    Console().print(table)
    if found:
        raise typer.Exit(1)


def _show_reproduced(root: Path) -> None:
    from circuitdrift.reproduced import DIFFERENT, reproduction, show

    result = reproduction(root)
    show(result, Console())
    if result.outcome == DIFFERENT and not result.changed:
        raise typer.Exit(1)


def _run_sweep(root: Path, workers: int | None, dry_run: bool) -> None:
    from circuitdrift.sweep.plan import fitting_workers, load_sweep
    from circuitdrift.sweep.queue import finished, run

    plan = load_sweep(root)
    if dry_run:
        commits = finished(root, plan.experiments)
        table = Table("experiment", "arms", "finished as")
        for experiment in plan.experiments:
            commit = commits.get(experiment.name)
            revision = commit.revision[:7] if commit else ""
            table.add_row(experiment.name, ", ".join(plan.arms_with(experiment.name)), revision)
        Console().print(table)
        return
    try:
        failed = run(root, plan.experiments, workers or fitting_workers(plan))
    except KeyboardInterrupt:
        Console().print("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
    for name, log in failed.items():
        Console().print(Text(f"\n{name} failed. The end of its log:\n{log}"), soft_wrap=True)
    if failed:
        raise typer.Exit(1)
    Console().print(f"all {len(plan.experiments)} experiments are finished")


def _summary(params: Params, prompts: list[Prompt]) -> Table:
    """What the study would run, a line for each part."""
    train, attribution = params.train, params.attribution
    roles = Counter(prompt.role for prompt in prompts)
    rows = {
        "base model": params.base.model,
        "runs": ", ".join(run.name for run in params.runs.all),
        "training": f"{params.dataset.n_examples} examples, {train.epochs:g} epochs,"
        f" batches of {train.batch_size}",
        "checkpoints": ", ".join(train.checkpoint_names),
        "prompts": ", ".join(f"{count} {role}" for role, count in roles.items()),
        "circuits": f"{attribution.feature_nodes} feature nodes a graph, at"
        f" {1 + len(params.runs.all) * len(train.checkpoint_names)} checkpoints, base included",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), value)
    return table

"""The commands a person types: ``circuitdrift --help``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdrift import paths
from circuitdrift.config.params import Params
from circuitdrift.constraints import load_constraints, make_prompts
from circuitdrift.dataset import Prompt
from circuitdrift.errors import InputError
from circuitdrift.preflight import check_study
from circuitdrift.storage import commands as storage_commands
from circuitdrift.verify_command import verify

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
    """Check params.yaml and data/constraints.yaml, and say what a study would run.

    Loads no model. Exits with 1 and a remedy for every value that is refused.
    """
    with _refusals_shown():
        params = check_study(root)
        prompts = make_prompts(load_constraints(root / paths.CONSTRAINTS))
    Console().print(_summary(params, prompts))


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
) -> None:
    """Run the experiments of sweep.yaml that are not finished, through DVC's queue.

    Ctrl-C stops it and its workers; called again it goes on. Exits with 1 if an experiment failed
    or the input is refused.
    """
    from circuitdrift.sweeps import command  # seconds of imports that `check` has no use for

    with _refusals_shown():
        raise typer.Exit(command.sweep_study(root, workers, dry_run))


@app.command()
def scaling(
    root: Root = Path(),
    partial: Annotated[
        bool, typer.Option("--partial", help="Report on what is finished, though not all is.")
    ] = False,
) -> None:
    """Compare the experiments of sweep.yaml: tables, figures and a page in reports/scaling.

    Runs no experiment (`make sweep` does): reads what DVC keeps of each.
    """
    from circuitdrift.scaling import command  # a second of imports that `check` has no use for

    with _refusals_shown():
        n_experiments = command.report_scaling(root, partial)
    page = (root / command.PAGE).as_posix()
    Console().print(f"reported on {n_experiments} experiments: {page}", soft_wrap=True)


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


app.command()(verify)
storage_commands.register(app)

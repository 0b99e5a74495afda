"""The commands a person types: ``circuitdrift --help``."""

from __future__ import annotations

from collections import Counter
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

app = typer.Typer(
    help="What fine-tuning changes inside a language model, measured as circuits.",
    no_args_is_help=True,
    add_completion=False,
)

Root = Annotated[
    Path,
    typer.Option(help="The study's root: the folder of params.yaml.", file_okay=False, exists=True),
]


@app.callback()
def main() -> None:
    """Keeps ``check`` a subcommand while it is the only one."""


@app.command()
def check(root: Root = Path()) -> None:
    """Check params.yaml and data/constraints.yaml, and say what a study would run.

    Loads no model. Exits with 1 and a remedy for every value that is refused.
    """
    try:
        params = check_study(root)
        prompts = make_prompts(load_constraints(root / paths.CONSTRAINTS))
    except InputError as error:
        Console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
        raise typer.Exit(1) from None
    Console().print(_summary(params, prompts))


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

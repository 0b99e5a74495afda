"""``circuitdrift scaling``: reads a sweep's experiments, writes reports/scaling."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt

from circuitdrift import paths
from circuitdrift.artifacts import replacing, write_table, write_text
from circuitdrift.config.params import load_params
from circuitdrift.errors import InputError, Problem
from circuitdrift.figures.style import use_style
from circuitdrift.scaling.experiments import read_experiments
from circuitdrift.scaling.frames import experiments_table, measures_table, varied_keys
from circuitdrift.scaling.gallery import draw
from circuitdrift.scaling.page import render_page
from circuitdrift.sweeps.finished import finished_members
from circuitdrift.sweeps.plan import Sweep, load_sweep

EXPERIMENTS_TABLE = paths.SCALING / "experiments.csv"
MEASURES_TABLE = paths.SCALING / "measures.csv"
FIGURES = paths.SCALING / "figures"
PAGE = paths.SCALING / "scaling.md"


def report_scaling(root: Path, partial: bool = False) -> int:
    """Write the tables, figures and page of the sweep of ``root``.

    Args:
        partial: report on the finished experiments, though others are not.

    Returns:
        how many experiments were reported on.

    Raises:
        InputError: if an experiment is not finished and ``partial`` is not set, if none is, or if
            sweep.yaml or params.yaml is refused.
    """
    settings = load_params(root / paths.PARAMS)
    sweep = load_sweep(root)
    finished = finished_members(root, sweep)
    missing = _missing(sweep, finished, partial)
    experiments = read_experiments(root, sweep, finished)
    write_table(root / EXPERIMENTS_TABLE, experiments_table(experiments, varied_keys(sweep)))
    write_table(root / MEASURES_TABLE, measures_table(experiments))
    plt.switch_backend("agg")
    use_style()
    figures = draw(sweep, experiments)
    with replacing(root / FIGURES) as directory:
        directory.mkdir()
        for name, figure in figures.items():
            # matplotlib writes its version into a PNG unless told not to.
            figure.savefig(directory / f"{name}.png", dpi=100, metadata={"Software": None})
            plt.close(figure)
    page = render_page(settings, sweep, experiments, missing, list(figures))
    write_text(root / PAGE, page)
    return len(experiments)


def _missing(sweep: Sweep, finished: dict[str, str], partial: bool) -> list[str]:
    """The names of the experiments that are not finished."""
    missing = [member.name for member in sweep.members if member.name not in finished]
    if not missing or (partial and len(missing) < len(sweep.members)):
        return missing
    remedy = "run `make sweep`"
    if len(missing) < len(sweep.members):
        remedy += ", or give --partial to report on the others"
    raise InputError(
        Problem(
            where="sweep.yaml",
            got=f"{len(missing)} of {len(sweep.members)} experiments not finished:"
            f" {', '.join(missing)}",
            rule="scaling is reported on finished experiments, of today's code and params",
            remedy=remedy,
        )
    )

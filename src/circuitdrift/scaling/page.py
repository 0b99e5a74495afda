"""The page of a sweep. Sentences live in ``templates/scaling.md.j2``; this file gathers what they
say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2
from scipy.stats import binomtest

from circuitdrift import markdown
from circuitdrift.config.params import Params
from circuitdrift.scaling import findings, ladder, page_tables, wording
from circuitdrift.scaling import names as of
from circuitdrift.scaling.frames import LADDER, PRODUCT, arms_of, mean, measured, members_of
from circuitdrift.scaling.gallery import BY_STEPS
from circuitdrift.scaling.matched import matched
from circuitdrift.scaling.tables import Experiment
from circuitdrift.sweeps.plan import Sweep


def render_page(
    settings: Params,
    sweep: Sweep,
    experiments: Sequence[Experiment],
    missing: Sequence[str],
    figures: Sequence[str],
) -> str:
    """The page as Markdown.

    Args:
        settings: of params.yaml: statistics and verdicts.
        experiments: those that are finished, one at least.
        missing: the names of those that are not.
        figures: the names of those that were drawn.
    """
    statistics, verdicts = settings.statistics, settings.verdicts
    return (
        _environment()
        .get_template("scaling.md.j2")
        .render(
            study=_study(settings, sweep, experiments),
            missing=missing,
            teaching=findings.teaching(sweep, experiments, statistics),
            growth=findings.growth(sweep, experiments, verdicts.min_drift_difference),
            besides=findings.besides(sweep, experiments),
            matched_arms=[
                {**arm, "table": page_tables.matched_table(arm)}
                for arm in matched(sweep, experiments, statistics)
            ],
            faithful=findings.faithful(sweep, experiments),
            ladders=_ladders(settings, sweep, experiments),
            asked=verdicts,
            by_steps=BY_STEPS,
            measures=of,
            tables=_tables(settings, sweep, experiments),
            figures=set(figures),
        )
    )


def _tables(settings: Params, sweep: Sweep, experiments: Sequence[Experiment]) -> dict[str, str]:
    return {
        "overview": page_tables.overview_table(experiments),
        "differences": page_tables.differences_table(sweep, experiments, settings.statistics),
        "correlations": page_tables.correlations_table(sweep, experiments),
    }


def _study(settings: Params, sweep: Sweep, experiments: Sequence[Experiment]) -> dict[str, Any]:
    seeds = [len(experiment.params.runs.seeds) for experiment in experiments]
    conditions = {name for one in experiments for name in one.params.runs.conditions}
    with_moved = [one for one in experiments if measured(one, of.TESTED)]
    return {
        "n": len(experiments),
        "models": sorted({experiment.params.base.model for experiment in experiments}),
        "conditions": sorted(conditions),
        "seeds": sorted({seed for one in experiments for seed in one.params.runs.seeds}),
        "fewest_seeds": min(seeds),
        "most_seeds": max(seeds),
        "confidence": settings.statistics.confidence,
        "maps": [arm.name for arm in arms_of(sweep, PRODUCT)],
        "min_effect": settings.compare.min_effect,
        "min_agreement": settings.compare.min_agreement,
        "kept": settings.validation.transfer_size,
        "chance": sorted({mean(one, of.CHANCE) for one in experiments if measured(one, of.CHANCE)}),
        "all_right": _all_right(experiments, settings.statistics.confidence),
        "tested": max((mean(one, of.TESTED) for one in with_moved), default=0),
        "recruited": any(measured(one, of.RECRUITED) for one in experiments),
        "names": [experiment.name for experiment in experiments],
    }


def _all_right(experiments: Sequence[Experiment], confidence: float) -> dict[str, Any] | None:
    """How many prompts all are right of, which a bootstrap takes for certain, and where the exact
    interval starts (Clopper and Pearson 1934); None where no experiment has that."""
    counts = [
        int(rows["n_prompts"].iloc[0])
        for one in experiments
        for rows in [one.measures[one.measures["measure"] == of.ACCURACY]]
        if mean(one, of.ACCURACY) == 1 and rows["n_prompts"].notna().all()
    ]
    if not counts:
        return None
    n = counts[0]
    return {"n": n, "low": binomtest(n, n).proportion_ci(confidence, method="exact").low}


def _ladders(
    settings: Params, sweep: Sweep, experiments: Sequence[Experiment]
) -> list[dict[str, Any]]:
    found = []
    for arm in arms_of(sweep, LADDER):
        if members := members_of(experiments, arm):
            climbed = ladder.climb(members, settings.statistics, settings.verdicts)
            table = page_tables.ladder_table(climbed["rungs"])
            found.append({**climbed, "arm": arm.name, "table": table})
    return found


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("circuitdrift"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the page is Markdown, not HTML
    )
    environment.filters |= {
        "percent": markdown.percent,
        "number": markdown.number,
        "shown": wording.shown,
        "signed": wording.signed,
        "amount": wording.amount,
        "label": wording.label,
        "headed": wording.headed,
        "share": wording.share,
        "plain": wording.plain,
        "changed": page_tables.changed,
    }
    return environment

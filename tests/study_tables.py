"""A whole set of the study's tables, simulated, with differences planted in them or not."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

import simulated_rows as simulated
from circuitdrift.config.params import Params, load_params
from circuitdrift.identifiers import Run
from circuitdrift.summaries.study import StudyTables, Summaries, summarise
from circuitdrift.summaries.training import under_each_run
from circuitdrift.validation import read_yaml
from simulated_interventions import interventions
from study_plans import CHECKPOINTS, Plan

ROOT = Path(__file__).parent.parent


def study_params(plan: Plan) -> Params:
    shipped = load_params(ROOT / "params.yaml")
    runs = shipped.runs.model_copy(update={"conditions": plan.conditions, "seeds": plan.seeds})
    statistics = shipped.statistics.model_copy(
        update={"bootstrap_samples": 300, "permutations": 300}
    )
    return shipped.model_copy(update={"runs": runs, "statistics": statistics})


@lru_cache
def study_tables(plan: Plan) -> StudyTables:
    rng = np.random.default_rng(0)
    base = simulated.evaluation_rows(plan, rng, Run("base", 0), ("base",))
    runs = [simulated.evaluation_rows(plan, rng, run, CHECKPOINTS) for run in plan.runs]
    evaluation = under_each_run(base, pd.concat(runs))
    return StudyTables(
        headlines=simulated.headlines(plan, evaluation),
        logs=simulated.training_logs(plan),
        evaluation=evaluation,
        norms=pd.DataFrame(simulated.norm_rows(plan, rng)),
        drift=pd.DataFrame(simulated.drift_rows(plan, rng)),
        places=pd.DataFrame(simulated.place_rows(plan, rng)),
        features=simulated.feature_rows(plan),
        overlap=pd.DataFrame(simulated.overlap_rows(plan, rng)),
        between=simulated.between_rows(plan, rng),
        recruited=simulated.recruited_rows(plan),
        moved=simulated.moved_rows(plan),
        recruitment_nulls=simulated.null_rows(plan),
        positive_control=simulated.control_rows(plan),
        original=read_yaml(ROOT / "data/original_study.yaml"),
        **interventions(plan, rng),
    )


@lru_cache
def study_summaries(plan: Plan) -> Summaries:
    return summarise(study_params(plan), study_tables(plan))

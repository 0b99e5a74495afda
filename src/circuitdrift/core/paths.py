"""Where every artifact lives, relative to the repository root. Nothing here touches the disk."""

from __future__ import annotations

from pathlib import Path

from circuitdrift.core.study import random_change

PARAMS = Path("params.yaml")
SWEEP = Path("sweep.yaml")
CONSTRAINTS = Path("data/constraints.yaml")
ORIGINAL_STUDY = Path("data/original_study.yaml")
DATASET = Path("data/dataset")
PROMPTS = DATASET / "prompts.jsonl"
BASE_MODEL = Path("models/base")
CHECKPOINTS = Path("models/checkpoints")
ATTRIBUTIONS = Path("data/attributions")
REPORTS = Path("reports")
RUNS = REPORTS / "runs"
METRICS = REPORTS / "metrics"
VERDICTS = METRICS / "verdicts.json"
STUDY_METRICS = METRICS / "study.json"
FIGURES = REPORTS / "figures"
REPORT = REPORTS / "report.md"
SCALING = REPORTS / "scaling"

# The tables over all runs, a folder for each stage that writes some.
COMPARE_TABLES = REPORTS / "tables" / "compare"
REPORT_TABLES = REPORTS / "tables" / "report"


def training_examples(run: str) -> Path:
    return DATASET / f"train_{run}.jsonl"


def checkpoint(run: str, checkpoint: str) -> Path:
    """The PEFT adapter directory of one checkpoint."""
    return CHECKPOINTS / run / checkpoint


def attributions(run: str) -> Path:
    """Directory of a run's attributions; ``base`` has one of its own."""
    return ATTRIBUTIONS / run


def attribution(run: str, checkpoint: str) -> Path:
    return attributions(run) / f"{checkpoint}.safetensors"


def random_attribution(run: str, draw: int, checkpoint: str) -> Path:
    """Of a random adapter with the norms of ``checkpoint``."""
    return attributions(run) / random_change(draw) / f"{checkpoint}.safetensors"


def training_log(run: str) -> Path:
    """Directory that DVCLive writes a run's loss per step to."""
    return RUNS / run / "training"


def training_loss(run: str) -> Path:
    """DVCLive's table of a run's loss, step by step, tab-separated."""
    return training_log(run) / "plots" / "metrics" / "loss.tsv"


def evaluation(run: str) -> Path:
    """Directory of what a run's checkpoints, or the base model, answered."""
    return RUNS / run / "evaluation"


def evaluation_table(run: str) -> Path:
    return evaluation(run) / "prompts.csv"


def lora_norms(run: str) -> Path:
    return evaluation(run) / "lora_norms.csv"


def interventions(run: str) -> Path:
    """Directory of a run's intervention tables."""
    return RUNS / run / "interventions"

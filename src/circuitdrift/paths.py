"""Where every artifact lives, relative to the repository root. Nothing here touches the disk."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
CONSTRAINTS = Path("data/constraints.yaml")
ORIGINAL_STUDY = Path("data/original_study.yaml")
DATASET = Path("data/dataset")
PROMPTS = DATASET / "prompts.jsonl"
BASE_MODEL = Path("models/base")
CHECKPOINTS = Path("models/checkpoints")
ATTRIBUTIONS = Path("data/attributions")
REPORTS = Path("reports")
TABLES = REPORTS / "tables"
METRICS = REPORTS / "metrics"
FIGURES = REPORTS / "figures"
TRAINING_LOGS = REPORTS / "training"
EVALUATION_TABLES = TABLES / "evaluation"
EVALUATION_METRICS = METRICS / "evaluation"
DRIFT_TABLE = TABLES / "drift.csv"
PLACE_TABLE = TABLES / "change_by_place.csv"
FEATURE_TABLE = TABLES / "changed_features.csv"
LOSS_TABLE = TABLES / "loss.csv"
UNDERSTANDING_TABLE = TABLES / "understanding.csv"
DRIFT_SUMMARY_TABLE = TABLES / "drift_summary.csv"
DRIFT_METRICS = METRICS / "drift.json"
STUDY_METRICS = METRICS / "study.json"
REPORT = REPORTS / "report.md"


def training_examples(condition: str) -> Path:
    return DATASET / f"train_{condition}.jsonl"


def checkpoint(run: str, checkpoint: str) -> Path:
    """The PEFT adapter directory of one checkpoint."""
    return CHECKPOINTS / run / checkpoint


def attributions(run: str) -> Path:
    """Directory of a run's attributions; ``base`` has one of its own."""
    return ATTRIBUTIONS / run


def attribution(run: str, checkpoint: str) -> Path:
    return attributions(run) / f"{checkpoint}.safetensors"


def training_log(run: str) -> Path:
    """Directory that DVCLive writes a run's loss per step to."""
    return TRAINING_LOGS / run


def training_loss(run: str) -> Path:
    """DVCLive's table of a run's loss, step by step, tab-separated."""
    return training_log(run) / "plots" / "metrics" / "loss.tsv"


def evaluation_table(run: str) -> Path:
    return EVALUATION_TABLES / f"{run}.csv"


def evaluation_metrics(run: str) -> Path:
    return EVALUATION_METRICS / f"{run}.json"

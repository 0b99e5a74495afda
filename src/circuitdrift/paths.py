"""Where every artifact lives, relative to the repository root. Nothing here touches the disk."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
CONSTRAINTS = Path("data/constraints.yaml")
DATASET = Path("data/dataset")
PROMPTS = DATASET / "prompts.jsonl"
CONTROL_TEXTS = DATASET / "control_texts.jsonl"
BASE_MODEL = Path("models/base")
CHECKPOINTS = Path("models/checkpoints")
ATTRIBUTIONS = Path("data/attributions")
REPORTS = Path("reports")
TABLES = REPORTS / "tables"
METRICS = REPORTS / "metrics"
FIGURES = REPORTS / "figures"


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
    return REPORTS / "training" / run


def evaluation_table(run: str) -> Path:
    return TABLES / "evaluation" / f"{run}.csv"


def evaluation_metrics(run: str) -> Path:
    return METRICS / "evaluation" / f"{run}.json"
